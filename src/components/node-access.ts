import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
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
  /** What may see all Nodes. */
  readonly nodesIdentity: () => Promise<TlsIdentity>
  /** What may see policies, and all pods and namespaces. */
  readonly policyIdentity: () => Promise<TlsIdentity>
  readonly kubelet: KubeletCredentials
}

export interface KubeletCredentials {
  /** Who may speak to it shows a certificate of one of these. */
  readonly clientCaFile: string
  readonly kubeconfig: string
  /** Issued by the daemon; a kubelet without it asks the cluster for one, and for its client certificate in time. */
  readonly serving?: KeyPairFiles
  /** Where a kubelet keeps those that it has asked for, with the first one that the daemon has. */
  readonly requestedDir?: string
}

/** Of a server, whose daemon issues all certificates. */
export function serverAccess(config: Config, { pkiDir, kubeconfigDir }: Paths): NodeAccess {
  const pki = pkiFiles(pkiDir)
  return {
    server: apiserverUrl(config),
    identity: () => readIdentity(pki, 'kubelet-client'),
    // Kubelets may see others only once there are some that have joined (addons/joining.ts); a server may stand beside one without.
    nodesIdentity: () => readIdentity(pki, 'kube-proxy-client'),
    policyIdentity: () => readIdentity(pki, 'admin-client'),
    kubelet: {
      clientCaFile: pki.authorities.client.certFile,
      kubeconfig: kubeconfigPath(kubeconfigDir, 'kubelet'),
      serving: pki.leaves.kubelet,
    },
  }
}

/** What a machine has of the cluster that it has joined. */
export interface JoinedFiles {
  readonly serverCaFile: string
  readonly clientCaFile: string
  /** The Node's certificate and its key in one file, a link: the kubelet replaces it in time. */
  readonly certificateFile: string
}

/** Pure: no file is looked at. */
export function joinedFiles({ pkiDir }: Pick<Paths, 'pkiDir'>): JoinedFiles {
  const { authorities } = pkiFiles(pkiDir)
  return {
    serverCaFile: authorities.server.certFile,
    clientCaFile: authorities.client.certFile,
    certificateFile: join(pkiDir, 'kubelet-client-current.pem'),
  }
}

/** Of an agent, which asks the cluster for its certificates. */
export function joinedAccess(paths: Paths, server: string): NodeAccess {
  const { serverCaFile, clientCaFile, certificateFile } = joinedFiles(paths)
  const identity = async () => {
    const [ca, pair] = await Promise.all(
      [serverCaFile, certificateFile].map((path) => readFile(path, 'utf8')),
    )
    return { ca, cert: pair, key: pair }
  }
  return {
    ...{ server, identity, nodesIdentity: identity, policyIdentity: identity },
    kubelet: {
      clientCaFile,
      kubeconfig: kubeconfigPath(paths.kubeconfigDir, 'kubelet'),
      requestedDir: paths.pkiDir,
    },
  }
}
