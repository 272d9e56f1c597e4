import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../../base/errors.ts'
import type * as Client from '../../client/client.ts'

/** Each looks every five seconds, and its API server reads a file that has changed within ten. */
const agreeLimitMs = 120_000
const agreePollMs = 500

type SharingClient = Pick<
  typeof Client,
  'readShared' | 'writeShared' | 'nodesAmong' | 'serverAddresses' | 'removeShared'
>

interface OtherServersOptions {
  readonly client: SharingClient
  readonly kubeconfig: string
  /** The key of the server authority, by which servers know each other. */
  readonly authorityKeyFile: string
  readonly limitMs?: number
}

/** The servers of a cluster of several, as who rotates keys on one of them sees them (cluster/tasks/encryption.ts). */
export class OtherServers {
  readonly #options: OtherServersOptions

  constructor(options: OtherServersOptions) {
    this.#options = options
  }

  /** From now on all servers go over to this configuration. */
  async publish(text: string): Promise<void> {
    const { client, kubeconfig, authorityKeyFile } = this.#options
    const { place, sealConfig } = await shared()
    const sealed = sealConfig(text, await readFile(authorityKeyFile, 'utf8'))
    await client.writeShared(kubeconfig, place, sealed)
  }

  /** Resolves when the API servers of all have loaded the configuration of this digest. Rejects with who has not. */
  async untilAgreed(digest: string): Promise<void> {
    const endMs = performance.now() + (this.#options.limitMs ?? agreeLimitMs)
    for (;;) {
      const late = await this.#late(digest)
      if (late === undefined) return
      if (performance.now() > endMs) throw disagree(late)
      await sleep(agreePollMs)
    }
  }

  /** Who has not loaded it, in words; undefined: all have. A server that left, or was removed, has no Node and no say. */
  async #late(digest: string): Promise<string | undefined> {
    const { client, kubeconfig } = this.#options
    const { place, loadedOf } = await shared()
    const loaded = loadedOf(await client.readShared(kubeconfig, place))
    const names = await client.nodesAmong(kubeconfig, [...loaded.keys()])
    const others = names.filter((name) => loaded.get(name) !== digest)
    if (others.length > 0) return others.join(', ')
    const { length } = await client.serverAddresses(kubeconfig)
    return names.length < length
      ? `one of ${length} servers, which has not said what it works with`
      : undefined
  }
}

/** What servers of a cluster shared that has one now, and goes by its file. */
export async function forgetOthers(client: SharingClient, kubeconfig: string): Promise<void> {
  const { place } = await shared()
  await client.removeShared(kubeconfig, place)
}

async function shared() {
  const { configKey, sharedEncryption, ...functions } = await import('../../pki/shared-encryption.ts')
  return { ...functions, place: { ...sharedEncryption, key: configKey } }
}

function disagree(late: string): AppError {
  return new AppError(`cannot rotate the keys: not all servers work with those of this one: ${late}`, {
    code: 'ENCRYPTION_DISAGREE',
    remedy:
      'bring it back, or take it out (k8s node remove); nothing is lost, and the next k8s secrets-encryption rotate goes on from here',
  })
}
