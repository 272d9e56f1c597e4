import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../../base/errors.ts'
import type * as Client from '../../client/client.ts'
import type { EncryptionKey } from '../../pki/encryption.ts'
import { storageIn } from '../../config/facts.ts'
import { loadClient } from '../client.ts'
import { type Command, type Invocation, requireRoot } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'

/** kube-apiserver looks at the file every ten seconds (components/kubernetes/main.go). */
const loadLimitMs = 120_000
const loadPollMs = 500
/** What is written with the old key while all is rewritten comes from a request that had begun before. */
const rewritesLimit = 3

export const encryptionRotate: Command = {
  name: 'secrets-encryption rotate',
  description: 'Give all Secrets of the cluster a new key, while it runs.',
  details: `The API server first reads a new key, then writes with it, then writes every Secret anew. The key before stays, to read with,
until the next rotation: snapshots that were begun meanwhile need it. A rotation that was interrupted is finished by the next
call. Snapshots have the keys that their Secrets need.`,
  examples: [
    {
      command: 'k8s secrets-encryption rotate',
      description: 'Once in a while, or when a key may have leaked',
    },
  ],
  options: daemonOptions,
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  requireRoot('rotate the encryption keys')
  const paths = await pathsOf(invocation)
  const client = await loadClient(invocation)
  if (storageIn(paths.dataDir) !== 'embedded')
    await prepareServers(paths.adminKubeconfig, { ...invocation, client })
  const [{ secretFiles }, { countSecrets }] = await Promise.all([
    import('../../pki/secrets.ts'),
    import('./state.ts'),
  ])
  const rotation = new Rotation({
    ...{ client, kubeconfig: paths.adminKubeconfig, path: secretFiles(paths.pkiDir).encryptionConfigFile },
    ...{ count: () => countSecrets(paths), print: invocation.print },
  })
  await rotation.run()
  return 0
}

/**
 * Each server has the keys in a file of its own, and with another one could not read what this one writes; whoever has a token for servers
 * would be given those of before.
 */
async function prepareServers(
  kubeconfig: string,
  { client, print }: Pick<Invocation, 'print'> & { client: typeof Client },
): Promise<void> {
  const addresses = await client.serverAddresses(kubeconfig)
  if (addresses.length > 1) {
    throw new AppError(
      `cannot rotate the keys: the cluster has ${addresses.length} servers (${addresses.join(', ')}), and this one would write what the others cannot read`,
      {
        code: 'ENCRYPTION_SEVERAL_SERVERS',
        remedy: 'let the others leave (k8s etcd leave), rotate, and have them join again',
      },
    )
  }
  const { joinGroups } = await import('../../cluster/join/token.ts')
  const deleted = await client.deleteTokensOf(kubeconfig, joinGroups.server)
  if (deleted > 0) print(`Took ${deleted} tokens for servers back: they would give the keys of before.\n`)
}

interface RotationOptions {
  readonly client: Pick<typeof Client, 'loadedEncryption' | 'rewriteSecrets'>
  readonly kubeconfig: string
  /** How many Secrets are encrypted with which key. */
  readonly count: () => Promise<ReadonlyMap<string, number>>
  /** The encryption configuration. */
  readonly path: string
  readonly print: (text: string) => void
}

/** One rotation, or what is left of one. */
export class Rotation {
  readonly #options: RotationOptions

  constructor(options: RotationOptions) {
    this.#options = options
  }

  async run(): Promise<void> {
    const { path, print } = this.#options
    const { isPrepared, newEncryptionKey, readEncryptionKeys } = await import('../../pki/encryption.ts')
    let keys = await readEncryptionKeys(path)
    await this.#untilLoaded()
    if (!isPrepared(keys)) {
      // Of a rotation that was interrupted, or of who had no encryption before.
      if ((await this.#withoutFirst(keys)) > 0) {
        print('Finishing the rotation before.\n')
        return this.#rewrite(keys)
      }
      const [first] = keys
      keys = await this.#write(keys, [first!, newEncryptionKey(keys)])
      print(`The API server can read with ${keys[1]!.name}.\n`)
    }
    const newest = keys.at(-1)!
    keys = await this.#write(keys, [newest, ...keys.filter((key) => key !== newest)])
    print(`The API server writes with ${newest.name}.\n`)
    await this.#rewrite(keys)
  }

  /** Replaces the keys that are expected there, and returns what is there once the API server has read it. */
  async #write(expected: readonly EncryptionKey[], keys: EncryptionKey[]): Promise<EncryptionKey[]> {
    const { path } = this.#options
    const { readEncryptionKeys, writeEncryptionKeys } = await import('../../pki/encryption.ts')
    const names = (list: readonly EncryptionKey[]) =>
      list.map(({ name, secret }) => `${name}:${secret}`).join()
    if (names(await readEncryptionKeys(path)) !== names(expected)) {
      throw new AppError('cannot rotate the keys: somebody else rotates them at the same time', {
        code: 'ENCRYPTION_BUSY',
        remedy: 'wait for that one; k8s secrets-encryption status shows what has been done',
      })
    }
    await writeEncryptionKeys(path, keys)
    await this.#untilLoaded()
    return keys
  }

  async #untilLoaded(): Promise<void> {
    const { kubeconfig, client, path } = this.#options
    const { digestOf } = await import('./state.ts')
    const endMs = performance.now() + loadLimitMs
    while ((await client.loadedEncryption(kubeconfig)) !== (await digestOf(path))) {
      if (performance.now() > endMs) {
        throw new AppError(
          `cannot rotate the keys: the API server has not read ${path} within ${loadLimitMs / 1000} s`,
          {
            code: 'ENCRYPTION_NOT_LOADED',
            remedy:
              'its log says why; nothing is lost, and the next k8s secrets-encryption rotate goes on from here',
          },
        )
      }
      await sleep(loadPollMs)
    }
  }

  async #rewrite(keys: readonly EncryptionKey[]): Promise<void> {
    const { kubeconfig, client, print } = this.#options
    for (let attempt = 1; attempt <= rewritesLimit; attempt++) {
      const count = await client.rewriteSecrets(kubeconfig)
      if ((await this.#withoutFirst(keys)) > 0) continue
      print(`All ${count} Secrets are encrypted with ${keys[0]!.name}.\n`)
      return
    }
    throw new AppError('cannot finish the rotation: some Secrets still do not have the new key', {
      code: 'ENCRYPTION_UNFINISHED',
      remedy: 'see k8s secrets-encryption status, and rotate again: it goes on from here',
    })
  }

  /** How many Secrets are not encrypted with the first key. */
  async #withoutFirst([first]: readonly EncryptionKey[]): Promise<number> {
    const counts = await this.#options.count()
    return [...counts].reduce((sum, [name, count]) => (name === first?.name ? sum : sum + count), 0)
  }
}
