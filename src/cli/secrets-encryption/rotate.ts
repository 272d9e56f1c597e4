import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../../base/errors.ts'
import type * as Client from '../../client/client.ts'
import type { Paths } from '../../config/paths.ts'
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
call. Of several servers all go through each step together. Snapshots have the keys that their Secrets need.`,
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
  const [{ secretFiles }, { countSecrets }] = await Promise.all([
    import('../../pki/secrets.ts'),
    import('./state.ts'),
  ])
  const others = await otherServers(paths, { ...invocation, client })
  const rotation = new Rotation({
    ...(others && { others }),
    ...{ client, kubeconfig: paths.adminKubeconfig, path: secretFiles(paths.pkiDir).encryptionConfigFile },
    ...{ count: () => countSecrets(paths), print: invocation.print },
  })
  await rotation.run()
  return 0
}

/**
 * Of several servers all go over together; whoever has a token for servers would be given the keys of before. undefined: there is one alone.
 */
async function otherServers(
  paths: Paths,
  { client, print }: Pick<Invocation, 'print'> & { client: typeof Client },
): Promise<RotationOptions['others']> {
  const { adminKubeconfig: kubeconfig, pkiDir } = paths
  const [{ forgetOthers, OtherServers }, { joinGroups }, { pkiFiles }] = await Promise.all([
    import('./other-servers.ts'),
    import('../../cluster/join/token.ts'),
    import('../../pki/pki.ts'),
  ])
  if (storageIn(paths.dataDir) === 'embedded') {
    await forgetOthers(client, kubeconfig)
    return undefined
  }
  const deleted = await client.deleteTokensOf(kubeconfig, joinGroups.server)
  if (deleted > 0) print(`Took ${deleted} tokens for servers back: they would give the keys of before.\n`)
  return new OtherServers({
    ...{ client, kubeconfig, authorityKeyFile: pkiFiles(pkiDir).authorities.server.keyFile },
  })
}

interface RotationOptions {
  readonly client: Pick<typeof Client, 'loadedEncryption' | 'rewriteSecrets'>
  readonly kubeconfig: string
  /** Of a cluster of several servers. */
  readonly others?: {
    publish(text: string): Promise<void>
    untilAgreed(digest: string): Promise<void>
  }
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
    const { readEncryptionKeys, renderEncryptionKeys, writeEncryptionKeys } = await import(
      '../../pki/encryption.ts'
    )
    const names = (list: readonly EncryptionKey[]) =>
      list.map(({ name, secret }) => `${name}:${secret}`).join()
    if (names(await readEncryptionKeys(path)) !== names(expected)) {
      throw new AppError('cannot rotate the keys: somebody else rotates them at the same time', {
        code: 'ENCRYPTION_BUSY',
        remedy: 'wait for that one; k8s secrets-encryption status shows what has been done',
      })
    }
    // First: what a server has alone, it gives up for what all share.
    await this.#options.others?.publish(renderEncryptionKeys(keys))
    await writeEncryptionKeys(path, keys)
    await this.#untilLoaded()
    return keys
  }

  async #untilLoaded(): Promise<void> {
    const { kubeconfig, client, path, others } = this.#options
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
    await others?.untilAgreed(await digestOf(path))
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
