import { expect, test } from 'vitest'
import { checkTxn } from '../../../src/datastore/grpc/request-rules.ts'
import { StatusError } from '../../../src/datastore/grpc/status.ts'
import type { KeyRange } from '../../../src/datastore/mvcc/key-range.ts'
import type {
  DeleteRangeRequest,
  Operation,
  PutRequest,
  TxnRequest,
} from '../../../src/datastore/mvcc/requests.ts'
import { type Random, fuzz, fuzzCases, oneOf } from '../../random.ts'

const keys = ['a', 'a\0', 'b', 'c', 'd', 'e']
const ends = ['', '', '', '\0', ...keys]

function put(key: string): PutRequest {
  const value = Buffer.alloc(0)
  return { kind: 'put', key, value, lease: 0n, previousKv: false, ignoreValue: false, ignoreLease: false }
}

function remove(key: string, end = ''): DeleteRangeRequest {
  return { kind: 'delete-range', key, end, previousKv: false }
}

function txn(success: readonly Operation[], failure: readonly Operation[] = []): TxnRequest {
  return { kind: 'txn', compares: [], success, failure }
}

function randomOperations(random: Random, depth: number): Operation[] {
  return Array.from({ length: random(4) }, () => {
    const choice = random(depth < 3 ? 3 : 2)
    if (choice === 0) return put(oneOf(random, keys))
    if (choice === 1) return remove(oneOf(random, keys), oneOf(random, ends))
    return txn(randomOperations(random, depth + 1), randomOperations(random, depth + 1))
  })
}

/** etcd's rule, one comparison after the other: api/v3rpc/key.go, checkIntervals. */
function hasDuplicate(operations: readonly Operation[]): boolean {
  const walk = (list: readonly Operation[]): { puts: Set<string>; deletes: KeyRange[] } | undefined => {
    const inner = {
      puts: new Set<string>(),
      deletes: list.filter(({ kind }) => kind === 'delete-range') as KeyRange[],
    }
    const clashes = (key: string): boolean =>
      inner.deletes.some((range) =>
        range.end === '' ? key === range.key : key >= range.key && key < range.end,
      )
    for (const operation of list) {
      if (operation.kind !== 'txn') continue
      const branches = [walk(operation.success), walk(operation.failure)]
      const before = new Set(inner.puts)
      for (const branch of branches) {
        if (branch === undefined) return undefined
        for (const key of branch.puts) if (before.has(key) || clashes(key)) return undefined
      }
      for (const branch of branches) {
        for (const key of branch?.puts ?? []) inner.puts.add(key)
        inner.deletes.push(...(branch?.deletes ?? []))
      }
    }
    for (const operation of list) {
      if (operation.kind !== 'put') continue
      if (inner.puts.has(operation.key) || clashes(operation.key)) return undefined
      inner.puts.add(operation.key)
    }
    return inner
  }
  return walk(operations) === undefined
}

test('a key that is written twice is found as one comparison after the other finds it', async () => {
  const seen = new Map<boolean, number>()
  await fuzz(fuzzCases(5000), async (random) => {
    const request = txn(randomOperations(random, 0), randomOperations(random, 0))
    let isRefused = false
    try {
      checkTxn(request, 100)
    } catch (thrown) {
      expect(thrown).toBeInstanceOf(StatusError)
      isRefused = true
    }
    expect(isRefused).toBe(hasDuplicate(request.success) || hasDuplicate(request.failure))
    seen.set(isRefused, (seen.get(isRefused) ?? 0) + 1)
  })
  expect(seen.get(true)).toBeGreaterThan(500)
  expect(seen.get(false)).toBeGreaterThan(500)
})

test('a hundred thousand writes of one transaction are checked', () => {
  // Each with each would take minutes.
  const writes = Array.from({ length: 50_000 }, (_, at) => [put(`put/${at}`), remove(`delete/${at}`)]).flat()
  expect(() => checkTxn(txn(writes), 100_000)).not.toThrow()
  const ranges = Array.from({ length: 50_000 }, (_, at) => remove(`delete/${at}`, `delete/${at}x`))
  expect(() => checkTxn(txn([...writes, ...ranges]), 150_000)).not.toThrow()
  expect(() => checkTxn(txn([...writes, put('delete/777')]), 150_000)).toThrow('duplicate key')
})

test('many small transactions within others are checked', () => {
  let count = 0
  const nest = (depth: number): Operation =>
    depth === 0
      ? count++ % 2 === 0
        ? put(`put/${count}`)
        : remove(`delete/${count}`)
      : txn([nest(depth - 1), nest(depth - 1), nest(depth - 1)])
  expect(() => checkTxn(nest(10) as TxnRequest, 128)).not.toThrow()
  expect(count).toBe(3 ** 10)
})
