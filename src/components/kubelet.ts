import type { Config } from '../config/config.ts'
import { request, type TlsIdentity } from '../base/https.ts'
import { flags } from './arguments.ts'

export interface KubeletOptions {
  readonly config: Config
  /** The rendered KubeletConfiguration. */
  readonly configFile: string
  readonly kubeconfig: string
}

export const kubeletPort = 10250
export const kubeletHealthPort = 10248

/** The flags of kubelet (cmd/kubelet/app/options): what its configuration file has no field for. */
export function kubeletArguments({ config, configFile, kubeconfig }: KubeletOptions): string[] {
  return flags(
    {
      config: configFile,
      'hostname-override': config.nodeName,
      kubeconfig,
      'node-ip': config.nodeIp,
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
  if (status !== 200) throw new Error(`${url} answers ${status}`)
  const ready = (JSON.parse(body) as Node).status?.conditions?.find(({ type }) => type === 'Ready')
  if (ready?.status !== 'True')
    throw new Error(`the Node is not Ready: ${ready?.message ?? 'it has no status yet'}`)
}
