import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { allDone } from '../base/all-done.ts'
import { errorCode } from '../base/errors.ts'
import {
  prepareParent,
  preparePrivateDirectory,
  privateMode,
  rendered,
  writeFileIfChanged,
} from '../base/files.ts'
import type { LeafName } from './leaves.ts'
import { type PkiFiles, readIdentity } from './pki.ts'

/** Who gets a kubeconfig that names files, which are read again when they are renewed. */
const clients = {
  'kube-controller-manager': 'controller-manager-client',
  'kube-scheduler': 'scheduler-client',
  kubelet: 'kubelet-client',
  'kube-proxy': 'kube-proxy-client',
} as const satisfies Record<string, LeafName>
export type KubeconfigClient = keyof typeof clients

export interface KubeconfigOptions {
  readonly pki: PkiFiles
  /** ${dataDir}/kubeconfig */
  readonly dir: string
  /** ${dataDir}/admin.kubeconfig */
  readonly adminPath: string
  /** --write-kubeconfig: a second copy of the admin's. */
  readonly copyPath?: string | undefined
  /** https://127.0.0.1:6443 */
  readonly server: string
}

/** The path of a component's kubeconfig. Pure. */
export function kubeconfigPath(dir: string, client: KubeconfigClient): string {
  return join(dir, `${client}.kubeconfig`)
}

/** Writes every kubeconfig, each 0600, where its content changed. Repeatable. */
export async function writeKubeconfigs(options: KubeconfigOptions): Promise<void> {
  const { pki, dir, adminPath, copyPath, server } = options
  const [admin] = await Promise.all([renderAdmin(pki, server), preparePrivateDirectory(dir)])
  const writes = Object.entries(clients).map(([client, leaf]) => {
    const text = renderKubeconfig({
      user: client,
      server,
      authority: `certificate-authority: ${JSON.stringify(pki.authorities.server.certFile)}`,
      certificate: `client-certificate: ${JSON.stringify(pki.leaves[leaf].certFile)}`,
      key: `client-key: ${JSON.stringify(pki.leaves[leaf].keyFile)}`,
    })
    return writeFileIfChanged(kubeconfigPath(dir, client as KubeconfigClient), text, rendered)
  })
  await allDone([...writes, writeFileIfChanged(adminPath, admin, rendered)])
  if (copyPath !== undefined) {
    await prepareParent(copyPath)
    await writeFileIfChanged(await followLink(copyPath), admin, { mode: privateMode })
  }
}

/** The admin's stands alone, so that it can be copied. */
async function renderAdmin(pki: PkiFiles, server: string): Promise<string> {
  const { ca = '', cert = '', key = '' } = await readIdentity(pki, 'admin-client')
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  return renderKubeconfig({
    user: 'admin',
    server,
    authority: `certificate-authority-data: ${base64(ca)}`,
    certificate: `client-certificate-data: ${base64(cert)}`,
    key: `client-key-data: ${base64(key)}`,
  })
}

/** `authority`, `certificate` and `key` are whole lines of YAML. */
function renderKubeconfig(values: {
  user: string
  server: string
  authority: string
  certificate: string
  key: string
}): string {
  const { user, server, authority, certificate, key } = values
  return `apiVersion: v1
kind: Config
clusters:
  - name: k8s
    cluster:
      server: ${server}
      ${authority}
users:
  - name: ${user}
    user:
      ${certificate}
      ${key}
contexts:
  - name: k8s
    context:
      cluster: k8s
      user: ${user}
current-context: k8s
`
}

/** A copy that is a symbolic link (~/.kube/config often is) stays one. */
async function followLink(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return path
    throw cause
  }
}
