import { join } from 'node:path'
import { allDone } from '../base/all-done.ts'
import { preparePrivateDirectory, writeRendered } from '../base/files.ts'
import { type PlainData, renderYaml } from '../base/yaml.ts'
import type { LeafName } from './leaves.ts'
import { type PkiFiles, readIdentity } from './pki.ts'

/** Who gets a kubeconfig that names files, which are read again when they are renewed. */
const clients = {
  'kube-controller-manager': 'controller-manager-client',
  'kube-scheduler': 'scheduler-client',
  kubelet: 'kubelet-client',
  'kube-proxy': 'kube-proxy-client',
} as const satisfies Record<string, LeafName>
type KubeconfigClient = keyof typeof clients

interface KubeconfigOptions {
  readonly pki: PkiFiles
  /** ${dataDir}/kubeconfig */
  readonly dir: string
  /** https://127.0.0.1:6443 */
  readonly server: string
}

type Fields = { readonly [key: string]: PlainData }

/** How one user reaches one cluster, in the words of a kubeconfig. */
export interface Access {
  readonly cluster: Fields
  readonly user: Fields
}

const clusterName = 'k8s'

/** The path of a component's kubeconfig. Pure. */
export function kubeconfigPath(dir: string, client: KubeconfigClient): string {
  return join(dir, `${client}.kubeconfig`)
}

/** Writes the kubeconfig of every client of the daemon's own, 0600, where its content changed. Repeatable. */
export async function writeKubeconfigs({ pki, dir, server }: KubeconfigOptions): Promise<void> {
  await preparePrivateDirectory(dir)
  const writes = Object.entries(clients).map(([client, leaf]) => {
    const access = {
      cluster: { server, 'certificate-authority': pki.authorities.server.certFile },
      user: { 'client-certificate': pki.leaves[leaf].certFile, 'client-key': pki.leaves[leaf].keyFile },
    }
    const text = renderKubeconfig(access, { cluster: clusterName, user: client, context: clusterName })
    return writeRendered(kubeconfigPath(dir, client as KubeconfigClient), text)
  })
  await allDone(writes)
}

/** What a machine without authorities shows in its place, and whom it believes. */
interface NodeKubeconfigOptions extends Pick<KubeconfigOptions, 'dir' | 'server'> {
  /** Of the cluster's servers. */
  readonly caFile: string
}

/** The kubelet's and kube-proxy's, with the Node's own certificate: a file that has its key, too. Repeatable. */
export async function writeNodeKubeconfigs(
  { dir, server, caFile }: NodeKubeconfigOptions,
  certificateFile: string,
): Promise<void> {
  await preparePrivateDirectory(dir)
  const access = {
    cluster: { server, 'certificate-authority': caFile },
    user: { 'client-certificate': certificateFile, 'client-key': certificateFile },
  }
  const names = { cluster: clusterName, user: 'node', context: clusterName }
  const text = renderKubeconfig(access, names)
  await allDone([
    writeRendered(kubeconfigPath(dir, 'kubelet'), text),
    writeRendered(kubeconfigPath(dir, 'kube-proxy'), text),
  ])
}

/** As `writeKubeconfigs`, the admin's. It stands alone, so that it can be copied. */
export async function writeAdminKubeconfig(path: string, pki: PkiFiles, server: string): Promise<void> {
  const admin = await adminAccess(pki, server)
  const text = renderKubeconfig(admin, { cluster: clusterName, user: 'admin', context: clusterName })
  await writeRendered(path, text)
}

export async function adminAccess(pki: PkiFiles, server: string): Promise<Access> {
  const { ca = '', cert = '', key = '' } = await readIdentity(pki, 'admin-client')
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  return {
    cluster: { server, 'certificate-authority-data': base64(ca) },
    user: { 'client-certificate-data': base64(cert), 'client-key-data': base64(key) },
  }
}

/** A whole kubeconfig of one context. `mark` is added to all that is in it. Pure. */
export function renderKubeconfig(
  { cluster, user }: Access,
  names: { readonly cluster: string; readonly user: string; readonly context: string },
  mark: Fields = {},
): string {
  return renderYaml({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: names.cluster, cluster: { ...cluster, ...mark } }],
    users: [{ name: names.user, user: { ...user, ...mark } }],
    contexts: [{ name: names.context, context: { cluster: names.cluster, user: names.user, ...mark } }],
    'current-context': names.context,
  })
}
