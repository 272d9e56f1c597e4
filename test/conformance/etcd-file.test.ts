import { execFile } from 'node:child_process'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { readEtcdFile } from '../../src/datastore/etcd-file/etcd-file.ts'
import { encodeEnd, encodeHead, encodeLease, encodeVersion } from '../../src/datastore/etcd-file/stream.ts'
import { etcdFileProgram, temporaryDirectory } from './etcd-peer.ts'

const run = promisify(execFile)

const head = encodeHead({ compactedRevision: 3, consistentIndex: 9, term: 2, isAuthEnabled: false })
const lease = { id: -7n, ttlSeconds: 60 }

function version(revision: number, sub = 0, key = 'a') {
  return {
    ...{ revision, sub, createRevision: revision, version: 1, lease: 0n },
    ...{ key: Buffer.from(key), value: Buffer.from(`value ${revision}`) },
  }
}

async function write(path: string, ...stream: Buffer[]): Promise<string> {
  const running = run(etcdFileProgram, ['write', path])
  running.child.stdin?.on('error', () => {})
  running.child.stdin?.end(Buffer.concat(stream))
  return running.then(
    () => '',
    (error: { stderr: string }) => error.stderr,
  )
}

test('what is written is read back', async () => {
  const path = join(temporaryDirectory(), 'file')
  const versions = [
    version(4),
    version(5),
    version(5, 1, 'b'),
    { ...version(6), version: 0, createRevision: 0, value: Buffer.alloc(0) },
  ]
  const end = encodeEnd({ versions: 4, leases: 1 })
  expect(await write(path, head, ...versions.map(encodeVersion), encodeLease(lease), end)).toBe('')
  expect(statSync(path)).toMatchObject({ mode: 0o100600 })
  expect(statSync(path).size % 512).toBe(32)
  const records = []
  for await (const record of readEtcdFile({ program: etcdFileProgram, path, wantsDigest: true }))
    records.push(record)
  expect(records).toEqual([
    { kind: 'head', compactedRevision: 3, consistentIndex: 9, term: 2, isAuthEnabled: false },
    ...versions.map((each) => ({ kind: 'version', ...each })),
    { kind: 'lease', ...lease },
    { kind: 'end' },
  ])
})

test.each([
  ['nothing', [], /ends before its end record/],
  ['no head', [encodeVersion(version(4))], /starts with a record 'V'/],
  ['another format', [Buffer.from(head).fill(9, 5, 6)], /has format 9, not 1/],
  ['no end', [head, encodeVersion(version(4))], /ends before its end record/],
  ['half a record', [head, encodeVersion(version(4)).subarray(0, 20)], /ends within a record/],
  [
    'a wrong count',
    [head, encodeVersion(version(4)), encodeEnd({ versions: 2, leases: 0 })],
    /has 1 versions and 0 leases, and says 2 and 0/,
  ],
  ['more after its end', [head, encodeEnd({ versions: 0, leases: 0 }), head], /goes on after its end record/],
  [
    'revisions that go back',
    [head, encodeVersion(version(5)), encodeVersion(version(4))],
    /revision 4\.0 comes after 5\.0/,
  ],
  [
    'a revision twice',
    [head, encodeVersion(version(5)), encodeVersion(version(5))],
    /revision 5\.0 comes after 5\.0/,
  ],
  ['an empty key', [head, encodeVersion(version(5, 0, ''))], /has a key of 0/],
  [
    'a version after a lease',
    [head, encodeLease(lease), encodeVersion(version(5))],
    /a version after a lease/,
  ],
  ['a record without end', [head, Buffer.from([255, 255, 255, 255, 0x56])], /a record of 4294967295 bytes/],
  ['an unknown record', [head, Buffer.from([1, 0, 0, 0, 0x58])], /has a record 'X'/],
] as const)('a stream with %s makes no file', async (_, stream, reason) => {
  const path = join(temporaryDirectory(), 'file')
  expect(await write(path, ...stream)).toMatch(reason)
  expect(existsSync(path)).toBe(false)
})

test('a file that exists is not replaced', async () => {
  const path = join(temporaryDirectory(), 'file')
  writeFileSync(path, 'mine')
  expect(await write(path, head, encodeEnd({ versions: 0, leases: 0 }))).toMatch(/file exists/)
  expect(readFileSync(path, 'utf8')).toBe('mine')
})
