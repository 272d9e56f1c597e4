import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { Board } from '../../../src/cluster/condition.ts'
import { encryption } from '../../../src/cluster/tasks/encryption.ts'
import type { TaskContext } from '../../../src/cluster/tasks/task.ts'
import { newEncryptionKey, readEncryptionKeys, renderEncryptionKeys } from '../../../src/pki/encryption.ts'
import { pkiFiles, preparePki, readIdentity } from '../../../src/pki/pki.ts'
import { sealConfig } from '../../../src/pki/shared-encryption.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { FakeCluster } from './join/fake-cluster.ts'

vi.setConfig({ testTimeout: 60_000 })

const identity = {
  ...{ nodeName: 'a', nodeIp: '127.0.0.1', advertiseAddress: '127.0.0.1', bindAddress: '0.0.0.0' },
  ...{ serviceCidr: '10.96.0.0/12', clusterDomain: 'cluster.local', tlsSan: [] },
}

/** A server whose API server has always loaded what is in the file. */
async function server() {
  const dir = join(temporaryDirectory(), 'pki')
  await preparePki({ ...identity, dir })
  const pki = pkiFiles(dir)
  const fake = new FakeCluster()
  fake.authority = { ...fake.authority, cert: readFileSync(pki.authorities.server.certFile, 'utf8') }
  const config = () => readFileSync(pki.encryptionConfigFile, 'utf8')
  const state = { data: undefined as Record<string, string> | undefined, writes: [] as string[] }
  fake.more = ({ path, method, body }) => {
    if (path === '/metrics') {
      const hash = createHash('sha256').update(config()).digest('hex')
      const name = 'apiserver_encryption_config_controller_last_config_info'
      return [200, `# x\n${name}{apiserver_id_hash="sha256:1",hash="sha256:${hash}"} 1\n` as never]
    }
    if (!path.includes('/secrets')) return undefined
    if (method === 'GET')
      return state.data === undefined ? [404, {}] : [200, { metadata: {}, data: state.data }]
    state.writes.push(method)
    state.data = (JSON.parse(body) as { data: Record<string, string> }).data
    return [200, {}]
  }
  const read = (name: string) => readFileSync(join(dir, name), 'utf8')
  await fake.start({ cert: read('apiserver.crt'), key: read('apiserver.key') })
  const end = new AbortController()
  const board = new Board()
  const context = {
    ...{ pki, board, log: silentLogger },
    config: { serverMode: 'ha', nodeName: 'a' },
    access: { admin: { server: fake.url, identity: () => readIdentity(pki, 'admin-client') } },
    whenReady: () => Promise.resolve(),
    isReady: () => true,
  } as unknown as TaskContext
  const begin = async () => {
    const running = encryption.run(context, end.signal)
    running.catch(() => {})
    return async () => {
      end.abort()
      await expect(running).rejects.toThrow('aborted')
    }
  }
  const authorityKey = readFileSync(pki.authorities.server.keyFile, 'utf8')
  const digest = () => Buffer.from(createHash('sha256').update(config()).digest('hex')).toString('base64')
  return { pki, state, board, begin, authorityKey, config, digest }
}

test('a server says what it has loaded, beside what others have said', async () => {
  const { state, begin, digest } = await server()
  const stop = await begin()
  await vi.waitFor(() => expect(state.data).toEqual({ 'server.a': digest() }))
  expect(state.writes).toEqual(['POST'])
  await stop()
})

test('what another server has written is taken over, and told', async () => {
  const { pki, state, begin, authorityKey, config, digest } = await server()
  const keys = await readEncryptionKeys(pki.encryptionConfigFile)
  const next = renderEncryptionKeys([...keys, newEncryptionKey(keys)])
  const sealed = sealConfig(next, authorityKey).toString('base64')
  state.data = { config: sealed, 'server.b': 'MDE=' }
  const stop = await begin()
  await vi.waitFor(() => expect(state.data?.['server.a']).toBe(digest()))
  expect(config()).toBe(next)
  expect(state.data).toMatchObject({ config: sealed, 'server.b': 'MDE=' })
  await stop()
})

test.for([
  ['of another cluster', () => Buffer.from('x'.repeat(100)), 'cannot open the encryption configuration'],
  [
    'that does not read what this server writes',
    (key: string) => sealConfig(renderEncryptionKeys([newEncryptionKey([])]), key),
    'with them it could not read what it has written',
  ],
] as const)('a configuration %s is told, and not taken over', async ([, sealed, message]) => {
  const { state, board, begin, authorityKey, config } = await server()
  const before = config()
  state.data = { config: sealed(authorityKey).toString('base64') }
  const stop = await begin()
  await vi.waitFor(() => expect(board.part('encryption')?.message).toContain(message))
  expect(config()).toBe(before)
  await stop()
})

test('a server alone shares nothing', async () => {
  const whenReady = () => Promise.reject(new Error('asked'))
  const context = { config: { serverMode: 'single' }, whenReady } as unknown as TaskContext
  await expect(encryption.run(context, new AbortController().signal)).resolves.toBeUndefined()
})
