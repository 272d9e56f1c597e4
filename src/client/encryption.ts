import { type KubeConfig, CoreV1Api, type V1Secret, type V1SecretList } from '@kubernetes/client-node'
import { AppError, isStatus } from '../base/errors.ts'
import { request } from '../base/http.ts'
import { ask, connect, find } from './connection.ts'

/** Of the metrics of an API server, which has thousands. */
const metricsLimitBytes = 64 << 20
const pageLimit = 100
/** Whoever changes a Secret all the time is overtaken at last. */
const conflictsLimit = 20
const conflict = 409

/**
 * The digest of the encryption configuration with which the API server works; undefined: it tells none yet. KEP-3299,
 * apiserver/pkg/server/options/encryptionconfig/metrics.
 */
export async function loadedEncryption(kubeconfig: string): Promise<string | undefined> {
  const text = await readMetrics(connect(kubeconfig))
  return /^apiserver_encryption_config_controller_last_config_info\{[^}]*\bhash="sha256:([0-9a-f]+)"/m.exec(
    text,
  )?.[1]
}

/** Has the API server write every Secret anew, with the key that is its first. Returns how many there are. */
export async function rewriteSecrets(kubeconfig: string): Promise<number> {
  const api = connect(kubeconfig).makeApiClient(CoreV1Api)
  let count = 0
  let _continue: string | undefined
  do {
    const page = { limit: pageLimit, ...(_continue !== undefined && { _continue }) }
    const { items, metadata }: V1SecretList = await ask('list the Secrets', () =>
      api.listSecretForAllNamespaces(page),
    )
    for (const secret of items) await rewrite(api, secret)
    count += items.length
    _continue = metadata?._continue || undefined
  } while (_continue !== undefined)
  return count
}

/** Unchanged: the API server writes what is stored with another key than its first. One that was deleted needs nothing. */
async function rewrite(api: CoreV1Api, listed: V1Secret): Promise<void> {
  const { name = '', namespace = '' } = listed.metadata ?? {}
  const purpose = `write the Secret ${namespace}/${name} anew`
  let body: V1Secret | undefined = listed
  for (let attempt = 1; body !== undefined; attempt++) {
    const current: V1Secret = body
    try {
      await find(purpose, () => api.replaceNamespacedSecret({ name, namespace, body: current }))
      return
    } catch (error) {
      if (!isStatus(error, conflict) || attempt === conflictsLimit) throw error
      body = await find(purpose, () => api.readNamespacedSecret({ name, namespace }))
    }
  }
}

async function readMetrics(config: KubeConfig): Promise<string> {
  const cluster = config.getCurrentCluster()
  const user = config.getCurrentUser()
  const decoded = (data: string | undefined) =>
    data === undefined ? undefined : Buffer.from(data, 'base64').toString()
  const { status, body } = await request({
    url: `${cluster?.server ?? ''}/metrics`,
    tls: { ca: decoded(cluster?.caData), cert: decoded(user?.certData), key: decoded(user?.keyData) },
    maxBytes: metricsLimitBytes,
  })
  if (status !== 200)
    throw new AppError(`cannot read the metrics of the API server: HTTP ${status}`, { code: 'API_REQUEST' })
  return body
}
