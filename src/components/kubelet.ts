import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { privateDirectoryMode, rendered, writeFileAtomically } from '../base/files.ts'
import { request, type TlsIdentity } from '../base/http.ts'
import type { Paths } from '../config/paths.ts'
import { renderKubeletConfig } from '../node/render/kubelet-config.ts'
import { ports } from '../config/ports.ts'
import { kubeconfigPath } from '../pki/kubeconfig.ts'
import { readIdentity } from '../pki/pki.ts'
import { flags } from './arguments.ts'
import type { ComponentContext } from './component.ts'
import { apiserverUrl, probeHttp } from './probe.ts'
import { shareDirectory } from './shared-directory.ts'
import type { ProcessRecipe } from './process-component.ts'

const port = ports.kubelet.number
const healthPort = ports.kubeletHealth.number

export function kubelet(context: ComponentContext): ProcessRecipe {
  const { config, pki, credentials, log } = context
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
      await probeNode({
        server: apiserverUrl(config),
        nodeName: config.nodeName,
        tls: await readIdentity(pki, 'kubelet-client'),
        signal,
      })
    },
  }
}

async function probeHealth(signal: AbortSignal): Promise<void> {
  await probeHttp({ url: `http://127.0.0.1:${healthPort}/healthz`, signal })
}

function configFile({ etcDir }: Paths): string {
  return join(etcDir, 'kubelet.yaml')
}

async function writeFiles({ config, paths, pki, host, choices }: ComponentContext): Promise<void> {
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
    clientCaFile: pki.authorities.client.certFile,
    tlsCertFile: pki.leaves.kubelet.certFile,
    tlsKeyFile: pki.leaves.kubelet.keyFile,
    clusterDns: config.clusterDns,
    clusterDomain: config.clusterDomain,
    rootDir: config.kubeletRootDir,
    staticPodDir,
    resolvConf,
    nodeTaint: config.nodeTaint,
  })
  await mkdir(staticPodDir, { recursive: true, mode: privateDirectoryMode })
  await writeFileAtomically(configFile(paths), text, rendered)
  if (host.resolvConf.kind === 'rendered')
    await writeFileAtomically(resolvConf, host.resolvConf.text, rendered)
}

/** The flags of kubelet (cmd/kubelet/app/options): what its configuration file has no field for. */
export function kubeletArguments({
  config,
  addresses,
  paths,
}: Pick<ComponentContext, 'config' | 'addresses' | 'paths'>): string[] {
  return flags(
    {
      config: configFile(paths),
      'hostname-override': config.nodeName,
      kubeconfig: kubeconfigPath(paths.kubeconfigDir, 'kubelet'),
      'node-ip': addresses().nodeIp,
      'node-labels': config.nodeLabel.length > 0 ? config.nodeLabel.join(',') : undefined,
      'root-dir': config.kubeletRootDir,
      v: config.v > 0 ? config.v : undefined,
    },
    config.kubeletArg,
  )
}

interface Node {
  readonly status?: {
    readonly conditions?: readonly {
      readonly type: string
      readonly status: string
      readonly message?: string
    }[]
  }
}

/**
 * Asks the API server for the Node's Ready condition with the kubelet's own identity, which may read
 * its Node and needs no rights beyond. Rejects with the reason while it isn't ready.
 */
export async function probeNode(options: {
  server: string
  nodeName: string
  tls: TlsIdentity
  signal: AbortSignal
}): Promise<void> {
  const { server, nodeName, tls, signal } = options
  const url = `${server}/api/v1/nodes/${encodeURIComponent(nodeName)}`
  const { status, body } = await request({ url, tls, signal })
  if (status === 404) {
    // pkg/kubelet/kubelet_node_status.go: registrationCompleted
    throw new Error(
      'there is none: the kubelet registers it when it starts, so one that was deleted comes back with a restart of k8s',
    )
  }
  if (status !== 200) throw new Error(`${url} answers ${status}`)
  const ready = (JSON.parse(body) as Node).status?.conditions?.find(({ type }) => type === 'Ready')
  if (ready?.status !== 'True')
    throw new Error(`the Node is not Ready: ${ready?.message ?? 'it has no status yet'}`)
}
