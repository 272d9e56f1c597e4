import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ApiAccess } from '../api/client.ts'
import type { TlsIdentity } from '../base/http.ts'
import type { Config } from '../config/config.ts'
import type { Paths } from '../config/paths.ts'
import type { KeyPairFiles } from '../pki/authority.ts'
import { kubeconfigPath } from '../pki/kubeconfig.ts'
import type { LeafName } from '../pki/leaves.ts'
import { pkiFiles, readIdentity } from '../pki/pki.ts'
import { apiserverUrl } from './probe.ts'

/** How what runs on this machine for its Node reaches the API server: with the Node's own identity. */
export interface NodeAccess extends ApiAccess {
  /** With what may see all Nodes. */
  readonly nodes: ApiAccess
  /** With what may see policies, and all pods and namespaces. */
  readonly policies: ApiAccess
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
export interface ServerAccess extends NodeAccess {
  /** With what may do everything. */
  readonly admin: ApiAccess
}

/** credentials: settled when they are there. */
export function serverAccess(
  config: Config,
  { pkiDir, kubeconfigDir }: Paths,
  credentials: Promise<unknown> = Promise.resolve(),
): ServerAccess {
  const pki = pkiFiles(pkiDir)
  const as = (name: LeafName) => ({
    server: apiserverUrl(config),
    identity: async () => {
      await credentials
      return await readIdentity(pki, name)
    },
  })
  const admin = as('admin-client')
  return {
    ...as('kubelet-client'),
    // Kubelets may see others only once there are some that have joined (addons/joining.ts); a server may stand beside one without.
    nodes: as('kube-proxy-client'),
    ...{ policies: admin, admin },
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

/** What such a machine shows. */
export async function joinedIdentity(paths: Pick<Paths, 'pkiDir'>): Promise<TlsIdentity> {
  const { serverCaFile, certificateFile } = joinedFiles(paths)
  const [ca, pair] = await Promise.all([serverCaFile, certificateFile].map((path) => readFile(path, 'utf8')))
  return { ca, cert: pair, key: pair }
}

/** Of an agent, which asks the cluster for its certificates. */
export function joinedAccess(paths: Paths, server: string): NodeAccess {
  const own = { server, identity: () => joinedIdentity(paths) }
  return {
    ...own,
    ...{ nodes: own, policies: own },
    kubelet: {
      clientCaFile: joinedFiles(paths).clientCaFile,
      kubeconfig: kubeconfigPath(paths.kubeconfigDir, 'kubelet'),
      requestedDir: paths.pkiDir,
    },
  }
}
