import { mkdtempDisposableSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  isPrepared,
  newEncryptionKey,
  readEncryptionKeys,
  writeEncryptionKeys,
} from '../../../src/pki/encryption.ts'

function configFile(): string {
  const directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-encryption-'))
  onTestFinished(() => directory.remove())
  return join(directory.path, 'encryption-config.yaml')
}

describe('the encryption configuration', () => {
  test('is read as it was written, and is for its owner alone', async () => {
    const path = configFile()
    const first = newEncryptionKey([])
    const keys = [newEncryptionKey([first]), first]
    expect(keys.map(({ name }) => name)).toEqual(['key-2', 'key-1'])
    expect(Buffer.from(first.secret, 'base64')).toHaveLength(32)
    await writeEncryptionKeys(path, keys)
    expect(await readEncryptionKeys(path)).toEqual(keys)
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  test.for([
    ['another provider', (text: string) => text.replace('secretbox', 'aescbc')],
    ['more resources', (text: string) => text.replace('- secrets\n', '- secrets\n      - configmaps\n')],
    ['a comment', (text: string) => `# ours\n${text}`],
    ['a key with a name of its own', (text: string) => text.replace('key-1', 'mine')],
    ['nothing', () => ''],
  ] as const)('that has %s is not touched by a rotation', async ([, change]) => {
    const path = configFile()
    await writeEncryptionKeys(path, [newEncryptionKey([])])
    const text = readFileSync(path, 'utf8')
    expect(change(text)).not.toBe(text)
    writeFileSync(path, change(text))
    const error: unknown = await readEncryptionKeys(path).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'ENCRYPTION_FORM' })
    expect(String(error)).not.toContain(/secret: "?([^"\n]+)/.exec(text)![1])
  })
})

test('a rotation has prepared a key until that is the first', () => {
  const [one, two, ten] = ['key-1', 'key-2', 'key-10'].map((name) => ({ name, secret: 's' }))
  expect(isPrepared([one!])).toBe(false)
  expect(isPrepared([one!, two!])).toBe(true)
  expect(isPrepared([two!, one!])).toBe(false)
  expect(isPrepared([two!, ten!])).toBe(true)
  expect(isPrepared([ten!, two!])).toBe(false)
})
