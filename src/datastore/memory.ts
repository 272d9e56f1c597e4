import { totalmem } from 'node:os'

import type { StoreLimits } from './mvcc/store.ts'

export const mebibyte = 1024 ** 2
/** V8 takes of a heap what it needs; the limit is half of the machine's memory, within these. */
const heapBytes = { least: 256 * mebibyte, most: 8192 * mebibyte } as const
/** What is kept of the heap at most: the values are beside it, but what names them is in it. */
const most = { historyBytes: 128 * mebibyte, readKeys: 16_000_000 } as const
/** Recent values: so much, or more in a store of many keys, which fewer of its values would be of use to. */
const values = { bytes: 40 * mebibyte, bytesOfKey: 128 } as const
/** What a key takes for as long as a request finds it, and for as long as one changes it and watchers are told. */
const requestBytes = { read: 192, changed: 2048 } as const

/** The limit of the serving thread's heap, from the memory of the machine or of the cgroup. */
export function defaultHeapBytes(): number {
  const constrained = process.constrainedMemory()
  const memoryBytes = constrained > 0 ? Math.min(constrained, totalmem()) : totalmem()
  return Math.min(heapBytes.most, Math.max(heapBytes.least, memoryBytes / 2))
}

/** The parts of a heap: an eighth each for recent values and recent history, half for the live keys, the rest for requests. */
export function storeLimits(limitBytes: number): StoreLimits {
  return {
    heapBytes: limitBytes,
    valueBytes: (keys) => Math.min(Math.max(values.bytes, keys * values.bytesOfKey), limitBytes / 8),
    historyBytes: Math.min(most.historyBytes, limitBytes / 8),
    keyBytes: limitBytes / 2,
    readKeys: Math.min(most.readKeys, limitBytes / requestBytes.read),
    changedKeys: limitBytes / requestBytes.changed,
  }
}
