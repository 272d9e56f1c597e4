import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { leavePastBehind } from '../../../src/cluster/server-was-reset.ts'
import type { Config } from '../../../src/config/config.ts'
import { readNodeRecord, updateNodeRecord } from '../../../src/config/facts.ts'
import type { Paths } from '../../../src/config/paths.ts'
import type { Payload } from '../../../src/payload/payload.ts'
import { prepareEtcdPki } from '../../../src/pki/etcd.ts'
import { finishReplacement } from '../../../src/snapshot/replacement.ts'
import { SuccessionWatch } from '../../../src/storage/succession-watch.ts'
import { keysDigest, succeed, successionKey } from '../../../src/storage/succession.ts'
import { message, RawClient, runDatastore, temporaryDirectory } from '../datastore/support.ts'
import { logHead, logHeadClusterId } from '../datastore/etcd-log.ts'
import { dataDirectory, methods, writeKeys } from '../snapshot/support.ts'

const config = { etcdPrefix: '/registry', httpsListenPort: 6443 } as Config
const payload = {} as Payload

let paths: Paths
let endpoint: string

beforeEach(async () => {
  paths = dataDirectory()
  writeKeys(paths, 'keys')
  await prepareEtcdPki({ dir: paths.pkiDir, isNew: true, nodeIp: '10.1.2.3' })
  mkdirSync(join(paths.memberDir, 'member/wal'), { recursive: true })
  writeFileSync(join(paths.memberDir, 'member/wal/0-0.wal'), logHead)
  endpoint = (await runDatastore({ path: join(temporaryDirectory(), 'state.db') })).listening
  updateNodeRecord(paths, { settings: { role: 'server' }, otherMembers: ['http://127.0.0.1:1', endpoint] })
})

const leave = () =>
  leavePastBehind(config, { paths, payload, log: silentLogger, signal: new AbortController().signal })

async function tell(former: readonly bigint[], keys: string): Promise<void> {
  const value = succeed(undefined, { former, keys })
  await new RawClient(endpoint).unary(methods.put, message({ 1: successionKey('/registry'), 2: value }))
}

function expectUntouched(): void {
  expect(existsSync(join(paths.memberDir, 'member/wal/0-0.wal'))).toBe(true)
  expect(existsSync(join(paths.dataDir, 'replaced'))).toBe(false)
  expect(readNodeRecord(paths).isJoining).toBeUndefined()
}

test('a server whose cluster goes on elsewhere puts its data aside, once, and joins', async () => {
  await tell([logHeadClusterId], await keysDigest(paths.pkiDir))
  await leave()
  expect(readdirSync(paths.memberDir)).toEqual([])
  expect(readNodeRecord(paths)).toEqual({
    formatVersion: 1,
    settings: { role: 'server' },
    isJoining: true,
    otherMembers: [endpoint],
    joinedAt: ['https://127.0.0.1:6443'],
  })
  const [kept = ''] = readdirSync(join(paths.dataDir, 'replaced'))
  expect(readdirSync(join(paths.dataDir, 'replaced', kept)).sort()).toEqual(['etcd', 'node.json'])
  expect(existsSync(join(paths.dataDir, 'replaced', kept, 'etcd/member/wal/0-0.wal'))).toBe(true)
  await leave()
  expect(await finishReplacement(paths, undefined)).toBeUndefined()
  expect(readdirSync(join(paths.dataDir, 'replaced'))).toEqual([kept])
})

test('with other keys it is refused, and nothing is touched', async () => {
  await tell([logHeadClusterId], 'of a snapshot')
  await expect(leave()).rejects.toMatchObject({
    code: 'CLUSTER_HAS_OTHER_KEYS',
    message: expect.stringContaining(endpoint),
  })
  expectUntouched()
})

test('it stays as it is where its own etcd is not one of the past, and where nobody can be asked', async () => {
  await leave()
  await tell([0x1n], await keysDigest(paths.pkiDir))
  await leave()
  updateNodeRecord(paths, { otherMembers: [] })
  await leave()
  expectUntouched()
  writeFileSync(join(paths.pkiDir, 'etcd-client.crt'), '')
  updateNodeRecord(paths, { otherMembers: [endpoint] })
  await leave()
  expectUntouched()
  expect(readFileSync(join(paths.memberDir, 'member/wal/0-0.wal'))).toEqual(logHead)
})

test('while it runs, a server whose member serves says that there are two clusters, and one whose does not ends', async () => {
  await tell([logHeadClusterId], await keysDigest(paths.pkiDir))
  let serves = true
  const watch = new SuccessionWatch({
    ...{ paths, others: () => [endpoint], prefix: '/registry' },
    timing: { calmIntervalMs: 1, intervalMs: 1 },
  })
  const end = new AbortController()
  const following = watch.follow(() => serves, end.signal)
  await expect.poll(() => watch.trouble).toContain(`reset on another server (${endpoint})`)
  serves = false
  expect(await watch.lost).toMatchObject({ code: 'CLUSTER_WAS_RESET', fields: { endpoint } })
  await following
  expect(watch.trouble).toBeUndefined()
  end.abort()
  await new SuccessionWatch({ paths, others: () => [endpoint], prefix: '' }).follow(() => true, end.signal)
})
