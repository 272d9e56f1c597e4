import { join } from 'node:path'
import { writeRendered } from '../base/files.ts'
import { ports } from '../config/ports.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { type MachineContext, nodeIps } from './component.ts'
import { probeHttp } from './probe.ts'
import type { ProcessRecipe } from './process-component.ts'
import { shareDirectory } from './shared-directory.ts'

const port = ports.kubelet.number
const healthPort = ports.kubeletHealth.number

/** What every kubelet is, whether it has a cluster or not; `probe` asks what its health does not say. */
export function kubeletProcess(
  { config, credentials, log }: MachineContext,
  {
    writeFiles,
    probe,
    ...own
  }: Pick<ProcessRecipe, 'needs' | 'args' | 'onRecord'> & {
    writeFiles: () => Promise<void>
    probe: (signal: AbortSignal) => Promise<void>
  },
): ProcessRecipe {
  return {
    ...own,
    name: 'kubelet',
    provides: ['node'],
    policy: 'degraded',
    env: config.kubeletMountHostsFile ? {} : { K8S_KUBELET_MOUNT_HOSTS_FILE: 'false' },
    logFormat: 'klog',
    readyTimeoutMs: 120_000,
    stopTimeoutMs: 10_000,
    ports: [port, healthPort],
    prepare: async () => {
      await Promise.all([
        credentials,
        writeFiles(),
        shareDirectory(config.kubeletRootDir, log.child({ component: 'kubelet' })),
      ])
    },
    // What else it lacks (an API server, a runtime, room on a disk) comes back without its help.
    alive: probeHealth,
    probe: async (signal) => {
      await probeHealth(signal)
      await probe(signal)
    },
  }
}

async function probeHealth(signal: AbortSignal): Promise<void> {
  await probeHttp({ url: `http://127.0.0.1:${healthPort}/healthz`, signal })
}

/** Of its configuration, what the machine says. */
export function machineOptions({ config, paths, host, choices }: MachineContext) {
  return {
    cgroupVersion: host.cgroups.version,
    cgroupDriver: choices.cgroupDriver,
    canLowerOomScore: host.capabilities.sysResource,
    userNamespace: host.isUserNamespace,
    rootDir: config.kubeletRootDir,
    resolvConf: host.resolvConf.kind === 'host' ? host.resolvConf.path : ownResolvConf(paths),
  }
}

/** Where the machine's own names no server that pods can reach, there is another one. */
export async function writeResolvConf({
  host,
  paths,
}: Pick<MachineContext, 'host' | 'paths'>): Promise<void> {
  if (host.resolvConf.kind === 'rendered') await writeRendered(ownResolvConf(paths), host.resolvConf.text)
}

function ownResolvConf({ etcDir }: MachineContext['paths']): string {
  return join(etcDir, 'resolv.conf')
}

/** The flags (cmd/kubelet/app/options) for which its configuration file has no field. */
export function machineFlags({ config, addresses }: Pick<MachineContext, 'config' | 'addresses'>) {
  return {
    'hostname-override': config.nodeName,
    // Without it the kubelet looks its own name up, three times for ten seconds where no name server answers.
    'node-ip': nodeIps(addresses()).join(','),
    'node-labels': config.nodeLabel.length > 0 ? config.nodeLabel.join(',') : undefined,
    // It looks for its mount by this very path, and binds one more over it at each start where a link leads there.
    'root-dir': new HostFiles().realPath(config.kubeletRootDir),
    v: config.v > 0 ? config.v : undefined,
  }
}
