import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { idsOfMember } from '../../../src/datastore/etcd-wal.ts'
import { logHead as head, logHeadClusterId } from './etcd-log.ts'
import { temporaryDirectory } from './support.ts'

function memberWith(files: Readonly<Record<string, Buffer>>): string {
  const dir = temporaryDirectory()
  mkdirSync(join(dir, 'member/wal'), { recursive: true })
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(dir, 'member/wal', name), bytes)
  return dir
}

test('a log says which cluster it is of', () => {
  const files = { '0000000000000000-0000000000000000.wal': head, '0.tmp': Buffer.from('x') }
  expect(idsOfMember(memberWith(files))?.clusterId).toBe(logHeadClusterId)
})

test.each([
  ['no directory', undefined],
  ['no file', {}],
  ['an empty file', { '0.wal': Buffer.alloc(0) }],
  ['zeros', { '0.wal': Buffer.alloc(5000) }],
  ['its head is cut off', { '0.wal': head.subarray(0, 40) }],
  ['a length beyond its end', { '0.wal': Buffer.from('ffffffffffffff7f00', 'hex') }],
  [
    'records that are none',
    { '0.wal': Buffer.concat([Buffer.from('0800000000000000', 'hex'), Buffer.alloc(8, 0xff)]) },
  ],
])('of %s nothing is known', (_, files) => {
  expect(idsOfMember(files === undefined ? '/none' : memberWith(files))).toBeUndefined()
})
