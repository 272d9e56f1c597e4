import { createHash, generateKeyPairSync } from 'node:crypto'
import { mkdtempDisposableSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { forgetOthers, OtherServers } from '../../../src/cli/secrets-encryption/other-servers.ts'
import { Rotation } from '../../../src/cli/secrets-encryption/rotate.ts'
import { newEncryptionKey, readEncryptionKeys, writeEncryptionKeys } from '../../../src/pki/encryption.ts'

const [one] = [newEncryptionKey([])]
const two = newEncryptionKey([one])

/** An API server that reads the file at once; `stuck` Secrets keep their key, however often they are written anew. */
async function given({ keys = [one], secrets = { 'key-1': 3 } as Record<string, number>, stuck = 0 } = {}) {
  const directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-rotation-'))
  onTestFinished(() => directory.remove())
  const path = join(directory.path, 'encryption-config.yaml')
  await writeEncryptionKeys(path, keys)
  let counts = new Map(Object.entries(secrets))
  const said: string[] = []
  const client = {
    loadedEncryption: async () => createHash('sha256').update(readFileSync(path)).digest('hex'),
    async rewriteSecrets() {
      const all = [...counts.values()].reduce((sum, count) => sum + count, 0)
      const [first] = await readEncryptionKeys(path)
      counts = new Map([[first!.name, all - stuck], ...(stuck > 0 ? ([['key-0', stuck]] as const) : [])])
      return all
    },
  }
  const options = {
    client,
    kubeconfig: '',
    path,
    count: async () => counts,
    print: (text: string) => said.push(text),
  }
  return { options, path, said, names: async () => (await readEncryptionKeys(path)).map(({ name }) => name) }
}

test('a rotation leaves the key before to read with, and only that', async () => {
  const { options, said, names } = await given()
  await new Rotation(options).run()
  expect(await names()).toEqual(['key-2', 'key-1'])
  expect(said.at(-1)).toBe('All 3 Secrets are encrypted with key-2.\n')
  await new Rotation(options).run()
  expect(await names()).toEqual(['key-3', 'key-2'])
})

test('Secrets that are left of the rotation before are finished first, with its key', async () => {
  const { options, said, names } = await given({ keys: [two, one], secrets: { 'key-2': 1, 'key-1': 2 } })
  await new Rotation(options).run()
  expect(said).toEqual(['Finishing the rotation before.\n', 'All 3 Secrets are encrypted with key-2.\n'])
  expect(await names()).toEqual(['key-2', 'key-1'])
})

test('Secrets that keep another key are told, and the keys stay', async () => {
  const { options, names } = await given({ stuck: 1 })
  await expect(new Rotation(options).run()).rejects.toMatchObject({ code: 'ENCRYPTION_UNFINISHED' })
  expect(await names()).toEqual(['key-2', 'key-1'])
})

test('a second rotation at the same time ends, and takes nothing from the first', async () => {
  const { options, path, names } = await given()
  const count = async () => {
    await writeEncryptionKeys(path, [one, two])
    return new Map([['key-1', 3]])
  }
  await expect(new Rotation({ ...options, count }).run()).rejects.toMatchObject({ code: 'ENCRYPTION_BUSY' })
  expect(await names()).toEqual(['key-1', 'key-2'])
})

test('of several servers each step is told to all, and waited for', async () => {
  const { options, path } = await given()
  const steps: string[] = []
  const others = {
    async publish(text: string) {
      steps.push(...text.matchAll(/key-\d/g).map(([name]) => name), 'published')
    },
    async untilAgreed(digest: string) {
      expect(digest).toBe(await options.client.loadedEncryption())
      steps.push('agreed')
    },
  }
  await new Rotation({ ...options, others }).run()
  expect(steps).toEqual([
    'agreed',
    ...['key-1', 'key-2', 'published', 'agreed'],
    ...['key-2', 'key-1', 'published', 'agreed'],
  ])
  expect(readFileSync(path, 'utf8')).toContain('key-2')
  const refused = { ...others, untilAgreed: () => Promise.reject(new Error('b does not agree')) }
  const before = readFileSync(path, 'utf8')
  await expect(new Rotation({ ...options, others: refused }).run()).rejects.toThrow('b does not agree')
  expect(readFileSync(path, 'utf8')).toBe(before)
})

test('all servers whose Nodes are there have to agree, and have to be as many as there are', async () => {
  const directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-rotation-'))
  onTestFinished(() => directory.remove())
  const authorityKeyFile = join(directory.path, 'ca.key')
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  writeFileSync(authorityKeyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const encoded = (text: string) => Buffer.from(text).toString('base64')
  let data: Record<string, string> = { 'server.a': encoded('0f'), 'server.gone': encoded('00') }
  let addresses = ['192.0.2.1']
  let removed = 0
  const client = {
    readShared: async () => data,
    writeShared: async (_: string, { key }: { key: string }, value: Buffer) =>
      void (data = { ...data, [key]: value.toString('base64') }),
    nodesAmong: async (_: string, names: readonly string[]) => names.filter((name) => name !== 'gone'),
    serverAddresses: async () => addresses,
    removeShared: async () => void removed++,
  }
  const servers = new OtherServers({ client, kubeconfig: '', authorityKeyFile, limitMs: 0 })
  await servers.untilAgreed('0f')
  addresses = ['192.0.2.1', '192.0.2.2']
  await expect(servers.untilAgreed('0f')).rejects.toThrow('one of 2 servers, which has not said')
  data['server.b'] = encoded('01')
  await expect(servers.untilAgreed('0f')).rejects.toMatchObject({
    code: 'ENCRYPTION_DISAGREE',
    message: 'cannot rotate the keys: not all servers work with those of this one: b',
  })
  data['server.b'] = encoded('0f')
  await servers.untilAgreed('0f')
  await servers.publish('text')
  expect(Object.keys(data)).toContain('config')
  await forgetOthers(client, '')
  expect(removed).toBe(1)
})
