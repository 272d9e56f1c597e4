import { generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import { newEncryptionKey, renderEncryptionKeys } from '../../../src/pki/encryption.ts'
import { entryOf, loadedOf, mayFollow, openConfig, sealConfig } from '../../../src/pki/shared-encryption.ts'

const newAuthority = () =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString()

test('what servers share opens with the key of their authority alone', () => {
  const key = newAuthority()
  const text = renderEncryptionKeys([newEncryptionKey([])])
  const sealed = sealConfig(text, key)
  expect(openConfig(sealed, key)).toBe(text)
  expect(sealed.includes('secretbox')).toBe(false)
  const closed = 'cannot open the encryption configuration that the servers share'
  expect(() => openConfig(sealed, newAuthority())).toThrow(closed)
  expect(() => openConfig(sealed.subarray(1), key)).toThrow(closed)
  expect(() => openConfig(Buffer.alloc(3), key)).toThrow(closed)
})

test('a server follows each step of a rotation, and nothing that does not read what it writes', () => {
  const one = newEncryptionKey([])
  const two = newEncryptionKey([one])
  const three = newEncryptionKey([one, two])
  const steps = [[one], [one, two], [two, one], [two, three], [three, two]].map(renderEncryptionKeys)
  for (const [index, step] of steps.slice(1).entries()) expect(mayFollow(steps[index]!, step)).toBe(true)
  expect(mayFollow(steps[4]!, steps[0]!)).toBe(false)
  // Another key of the same name.
  expect(mayFollow(steps[0]!, renderEncryptionKeys([newEncryptionKey([])]))).toBe(false)
  expect(mayFollow('written by hand', steps[0]!)).toBe(false)
  expect(mayFollow(steps[0]!, '')).toBe(false)
})

test('what each server has loaded is told by its name', () => {
  const data = { config: 'eA==', [entryOf('a.b')]: Buffer.from('0f').toString('base64') }
  expect([...loadedOf(data)]).toEqual([['a.b', '0f']])
  expect(loadedOf().size).toBe(0)
})
