import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Api, openApi } from '../../api/client.ts'
import { AppError, describeError, errorCode } from '../../base/errors.ts'
import { privateMode, writeFileAtomically } from '../../base/files.ts'
import {
  configKey,
  digestOfConfig,
  entryOf,
  loadedOf,
  mayFollow,
  openConfig,
  sharedEncryption,
} from '../../pki/shared-encryption.ts'
import { Trouble } from '../trouble.ts'
import type { Task, TaskContext } from './task.ts'

/** Between two looks, and while the API server has not loaded yet what is in the file. */
const calmIntervalMs = 5_000
const loadingIntervalMs = 1_000
/** Of the metrics of an API server, which has thousands. */
const metricsLimitBytes = 64 << 20
/** apiserver/pkg/server/options/encryptionconfig/metrics */
const loadedPattern =
  /^apiserver_encryption_config_controller_last_config_info\{[^}]*\bhash="sha256:([0-9a-f]+)"/m

/** What no API server that comes back mends. */
const ownTroubles = ['ENCRYPTION_SHARED', 'FILE_WRITE']

const { namespace, name } = sharedEncryption
const collection = `/api/v1/namespaces/${namespace}/secrets`
const path = `${collection}/${name}`

interface SharedSecret {
  readonly metadata: { readonly resourceVersion?: string }
  readonly data?: Readonly<Record<string, string>>
}

/** Has a server of several read and write with the keys that all have (pki/shared-encryption.ts), and tells the others that it does. */
export const encryption: Task<TaskContext> = {
  name: 'encryption',
  purpose: 'have the encryption keys of the other servers',
  leaderOnly: false,
  async run(context, signal) {
    const { config, whenReady, isReady, board, log } = context
    if (config.serverMode === 'single') return
    await whenReady('api')
    const trouble = new Trouble({ ...encryption, board, log })
    for (;;) {
      let isTold = true
      const attempt = async () => {
        isTold = await look(context, signal).catch((error: unknown) => {
          if (ownTroubles.includes(errorCode(error) ?? '')) throw error
          // kube-apiserver has a row of its own for not answering.
          log.debug(
            { reason: describeError(error) },
            'cannot look at the encryption keys of the other servers',
          )
          return true
        })
      }
      if (isReady('kube-apiserver')) await trouble.attempt(attempt, signal)
      await sleep(isTold ? calmIntervalMs : loadingIntervalMs, undefined, { signal, ref: false })
    }
  },
}

/** Whether the others know what this server works with. */
async function look(context: TaskContext, signal: AbortSignal): Promise<boolean> {
  const { access, config, pki, log } = context
  using api = await openApi(access.admin, signal)
  const found = await api.get<SharedSecret>(path)
  const own = await readFile(pki.encryptionConfigFile, 'utf8')
  const sealed = found?.data?.[configKey]
  const text = sealed === undefined ? own : await follow(context, { own, sealed })
  const digest = digestOfConfig(text)
  if (loadedOf(found?.data).get(config.nodeName) === digest) return true
  const metrics = await api.text('/metrics', metricsLimitBytes)
  if (loadedPattern.exec(metrics)?.[1] !== digest) return false
  log.debug({ digest }, 'the API server has loaded its encryption keys')
  return await tell(api, { found, nodeName: config.nodeName, digest })
}

/** The text by which it goes from here on. */
async function follow(
  { pki, log }: TaskContext,
  { own, sealed }: { own: string; sealed: string },
): Promise<string> {
  const authorityKey = await readFile(pki.authorities.server.keyFile, 'utf8')
  const shared = openConfig(Buffer.from(sealed, 'base64'), authorityKey)
  if (shared === own) return own
  if (!mayFollow(own, shared)) {
    throw new AppError(
      'cannot use the encryption keys that the servers share: with them it could not read what it has written',
      {
        code: 'ENCRYPTION_SHARED',
        remedy: `if the keys in ${pki.encryptionConfigFile} are right, delete the Secret ${namespace}/${name}`,
      },
    )
  }
  await writeFileAtomically(pki.encryptionConfigFile, shared, { mode: privateMode, durable: 'contents' })
  log.info('the encryption keys are those that another server has written')
  return shared
}

/** False where somebody else was faster: the next look does it. */
async function tell(
  api: Api,
  { found, nodeName, digest }: { found: SharedSecret | undefined; nodeName: string; digest: string },
): Promise<boolean> {
  const data = { ...found?.data, [entryOf(nodeName)]: Buffer.from(digest).toString('base64') }
  const written = await (found === undefined
    ? api.create(collection, { apiVersion: 'v1', kind: 'Secret', metadata: { namespace, name }, data })
    : api.replace(path, { ...found, data }))
  return written !== undefined
}
