import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { privateDirectoryMode, writeRendered } from '../base/files.ts'
import { ports } from '../config/ports.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { kubeletLayersDir, renderKubeletLayers } from '../node/render/kubelet-alone.ts'
import { flags } from './arguments.ts'
import { type KubeletContext, nodeIps } from './component.ts'
import { probeGrpcSocket, probeHttp } from './probe.ts'
import type { ProcessRecipe } from './process-component.ts'
import { shareDirectory } from './shared-directory.ts'

const port = ports.kubelet.number
const healthPort = ports.kubeletHealth.number

/** A kubelet without an API server: it runs the pods of a directory. */
export function kubeletAlone(context: KubeletContext): ProcessRecipe {
  const { config, credentials, log, onRecord, runtimeSocket } = context
  return {
    name: 'kubelet',
    // A pod whose image comes a moment too late is tried again after ten seconds.
    needs: config.containerRuntimeEndpoint === undefined ? ['cri', 'archives'] : [],
    provides: ['node'],
    policy: 'degraded',
    args: () => kubeletAloneArguments(context),
    env: config.kubeletMountHostsFile ? {} : { K8S_KUBELET_MOUNT_HOSTS_FILE: 'false' },
    logFormat: 'klog',
    onRecord,
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
    // A runtime that is away comes back without the kubelet's help.
    alive: probeHealth,
    probe: async (signal) => {
      await probeHealth(signal)
      await probeGrpcSocket({ path: runtimeSocket, signal })
    },
  }
}

async function probeHealth(signal: AbortSignal): Promise<void> {
  await probeHttp({ url: `http://127.0.0.1:${healthPort}/healthz`, signal })
}

async function writeFiles(context: KubeletContext): Promise<void> {
  const { config, paths, host, choices, pki } = context
  const resolvConf =
    host.resolvConf.kind === 'host' ? host.resolvConf.path : join(paths.etcDir, 'resolv.conf')
  const layersDir = kubeletLayersDir(paths.etcDir)
  const layers = renderKubeletLayers({
    cgroupVersion: host.cgroups.version,
    cgroupDriver: choices.cgroupDriver,
    canLowerOomScore: host.capabilities.sysResource,
    userNamespace: host.isUserNamespace,
    clientCaFile: pki.clientCaFile,
    serving: pki.serving,
    rootDir: config.kubeletRootDir,
    resolvConf,
    profile: config.profile,
    runtimeSocket: context.runtimeSocket,
    staticPodDir: config.manifests,
    bindAddress: config.kubeletBindAddress,
    own: context.ownConfig,
  })
  await mkdir(layersDir, { recursive: true, mode: privateDirectoryMode })
  await mkdir(config.manifests, { recursive: true, mode: 0o755 })
  for (const [name, text] of Object.entries(layers)) await writeRendered(join(layersDir, name), text)
  if (host.resolvConf.kind === 'rendered') await writeRendered(resolvConf, host.resolvConf.text)
}

/** The flags of kubelet (cmd/kubelet/app/options): what its configuration files have no field for. */
export function kubeletAloneArguments(
  context: Pick<KubeletContext, 'config' | 'addresses' | 'paths' | 'payload'>,
): string[] {
  const { config, addresses, paths, payload } = context
  return flags(
    {
      config: payload.standaloneKubelet,
      'config-dir': kubeletLayersDir(paths.etcDir),
      'hostname-override': config.nodeName,
      // Without it the kubelet looks its own name up, three times for ten seconds where no name server answers.
      'node-ip': nodeIps(addresses()).join(','),
      'node-labels': config.nodeLabel.length > 0 ? config.nodeLabel.join(',') : undefined,
      // It looks for its mount by this very path, and binds one more over it at each start where a link leads there.
      'root-dir': new HostFiles().realPath(config.kubeletRootDir),
      v: config.v > 0 ? config.v : undefined,
    },
    config.kubeletArg,
  )
}
