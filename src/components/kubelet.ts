import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { privateDirectoryMode, writeRendered } from '../base/files.ts'
import type { Paths } from '../config/paths.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { renderKubeletConfig } from '../node/render/kubelet-config.ts'
import { ports } from '../config/ports.ts'
import { flags } from './arguments.ts'
import { type NodeContext, nodeIps } from './component.ts'
import { probeHttp } from './probe.ts'
import { shareDirectory } from './shared-directory.ts'
import { probeNode, readLease, reportedAt, Reports } from './node.ts'
import type { ProcessRecipe } from './process-component.ts'

const port = ports.kubelet.number
const healthPort = ports.kubeletHealth.number

export function kubelet(context: NodeContext): ProcessRecipe {
  const { config, credentials, log } = context
  const reports = new Reports()
  return {
    name: 'kubelet',
    needs: ['api', 'cri'],
    provides: ['node'],
    policy: 'degraded',
    args: () => kubeletArguments(context),
    env: config.kubeletMountHostsFile ? {} : { K8S_KUBELET_MOUNT_HOSTS_FILE: 'false' },
    logFormat: 'klog',
    readyTimeoutMs: 120_000,
    stopTimeoutMs: 10_000,
    ports: [port, healthPort],
    prepare: async () => {
      await Promise.all([
        credentials,
        writeFiles(context),
        shareDirectory(config.kubeletRootDir, log.child({ component: 'kubelet' })),
      ])
    },
    // A Node that is not Ready may have any reason: an API server that is away, a full disk.
    alive: probeHealth,
    probe: async (signal) => {
      await probeHealth(signal)
      const node = await probeNode(context, signal)
      await reports.requireNew(reportedAt(node), { lease: () => readLease(context, signal) })
    },
  }
}

async function probeHealth(signal: AbortSignal): Promise<void> {
  await probeHttp({ url: `http://127.0.0.1:${healthPort}/healthz`, signal })
}

function configFile({ etcDir }: Paths): string {
  return join(etcDir, 'kubelet.yaml')
}

async function writeFiles({ config, paths, access, host, choices }: NodeContext): Promise<void> {
  const staticPodDir = join(paths.dataDir, 'manifests')
  const resolvConf =
    host.resolvConf.kind === 'host' ? host.resolvConf.path : join(paths.etcDir, 'resolv.conf')
  const text = renderKubeletConfig({
    cgroupVersion: host.cgroups.version,
    cgroupDriver: choices.cgroupDriver,
    canLowerOomScore: host.capabilities.sysResource,
    userNamespace: host.isUserNamespace,
    proxyMode: choices.proxyMode,
    containerdSocket: paths.containerdSocket,
    clientCaFile: access.kubelet.clientCaFile,
    serving: access.kubelet.serving,
    clusterDns: config.clusterDns,
    clusterDomain: config.clusterDomain,
    rootDir: config.kubeletRootDir,
    staticPodDir,
    resolvConf,
    nodeTaint: config.nodeTaint,
  })
  await mkdir(staticPodDir, { recursive: true, mode: privateDirectoryMode })
  await writeRendered(configFile(paths), text)
  if (host.resolvConf.kind === 'rendered') await writeRendered(resolvConf, host.resolvConf.text)
}

/** The flags of kubelet (cmd/kubelet/app/options): what its configuration file has no field for. */
export function kubeletArguments({
  config,
  addresses,
  paths,
  access: { kubelet: credentials },
}: Pick<NodeContext, 'config' | 'addresses' | 'paths' | 'access'>): string[] {
  return flags(
    {
      'cert-dir': credentials.requestedDir,
      config: configFile(paths),
      'hostname-override': config.nodeName,
      kubeconfig: credentials.kubeconfig,
      'node-ip': nodeIps(addresses()).join(','),
      'node-labels': config.nodeLabel.length > 0 ? config.nodeLabel.join(',') : undefined,
      // It looks for its mount by this very path, and binds one more over it at each start where a link leads there.
      'root-dir': new HostFiles().realPath(config.kubeletRootDir),
      v: config.v > 0 ? config.v : undefined,
    },
    config.kubeletArg,
  )
}
