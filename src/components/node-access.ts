import type { TlsIdentity } from '../base/http.ts'
import type { Config } from '../config/config.ts'
import type { Paths } from '../config/paths.ts'
import type { KeyPairFiles } from '../pki/authority.ts'
import { kubeconfigPath } from '../pki/kubeconfig.ts'
import { pkiFiles, readIdentity } from '../pki/pki.ts'
import { apiserverUrl } from './probe.ts'

/** How what runs on this machine for its Node reaches the API server, and what it shows there. */
export interface NodeAccess {
  /** https://127.0.0.1:6443 */
  readonly server: string
  /** The Node's own, from the files as they are now. Rejects while there is none. */
  readonly identity: () => Promise<TlsIdentity>
  readonly kubelet: KubeletCredentials
}

export interface KubeletCredentials {
  /** Who may speak to it shows a certificate of one of these. */
  readonly clientCaFile: string
  readonly kubeconfig: string
  /** Issued by the daemon; a kubelet without it asks the cluster for its certificates. */
  readonly serving?: KeyPairFiles
  /** Where a kubelet keeps those that it has asked for, and what it shows the first time. */
  readonly requested?: { readonly dir: string; readonly bootstrapKubeconfig: string }
}

/** Of a server, whose daemon issues all certificates. */
export function serverAccess(config: Config, { pkiDir, kubeconfigDir }: Paths): NodeAccess {
  const pki = pkiFiles(pkiDir)
  return {
    server: apiserverUrl(config),
    identity: () => readIdentity(pki, 'kubelet-client'),
    kubelet: {
      clientCaFile: pki.authorities.client.certFile,
      kubeconfig: kubeconfigPath(kubeconfigDir, 'kubelet'),
      serving: pki.leaves.kubelet,
    },
  }
}
