/**
 * A range of keys as etcd's requests give it: `end` '' means the one key, '\0' every key from `key`
 * on, else the keys in [key, end). etcd: etcdserver/txn/delete.go, mkGteRange.
 */
export interface KeyRange {
  readonly key: string
  readonly end: string
}

export const everyKeyEnd = '\0'

/** The first key behind the range, undefined when it has no end. */
export function limitOf({ key, end }: KeyRange): string | undefined {
  if (end === '') return `${key}\0`
  return end === everyKeyEnd ? undefined : end
}

export function contains({ key, end }: KeyRange, candidate: string): boolean {
  if (end === '') return candidate === key
  return candidate >= key && (end === everyKeyEnd || candidate < end)
}
