import type { KeyRange } from './key-range.ts'
import type { Version } from './version.ts'

/** etcd's RangeRequest.SortOrder and SortTarget, by their numbers. */
export const sortOrders = { none: 0, ascend: 1, descend: 2 } as const
export const sortTargets = { key: 0, version: 1, create: 2, mod: 3, value: 4 } as const

export interface RangeRequest extends KeyRange {
  readonly kind: 'range'
  /** 0 means no limit. */
  readonly limit: number
  /** 0 means the newest. */
  readonly revision: number
  readonly sortOrder: number
  readonly sortTarget: number
  readonly keysOnly: boolean
  readonly countOnly: boolean
  /** 0 means no such filter. */
  readonly minModRevision: number
  readonly maxModRevision: number
  readonly minCreateRevision: number
  readonly maxCreateRevision: number
  /** False when the caller has no use for the count, which costs time when the limit cuts. */
  readonly needsCount: boolean
}

export interface PutRequest {
  readonly kind: 'put'
  readonly key: string
  /** May be a view of a buffer that changes later: what keeps it copies it. */
  readonly value: Uint8Array
  readonly lease: bigint
  readonly previousKv: boolean
  readonly ignoreValue: boolean
  readonly ignoreLease: boolean
}

export interface DeleteRangeRequest extends KeyRange {
  readonly kind: 'delete-range'
  readonly previousKv: boolean
}

export interface TxnRequest {
  readonly kind: 'txn'
  readonly compares: readonly Compare[]
  readonly success: readonly Operation[]
  readonly failure: readonly Operation[]
}

export type Operation = RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest

/** etcd's Compare.CompareResult and CompareTarget, by their numbers. */
export const compareResults = { equal: 0, greater: 1, less: 2, notEqual: 3 } as const
export const compareTargets = { version: 0, create: 1, mod: 2, value: 3, lease: 4 } as const

export interface Compare extends KeyRange {
  readonly result: number
  readonly target: number
  /** What the target is compared with; 0 or empty when the request gives a value of another target. */
  readonly number: number
  readonly lease: bigint
  readonly value: Uint8Array
}

export interface RangeResult {
  readonly kind: 'range'
  /** The store's revision, not the one asked for. */
  readonly revision: number
  readonly versions: readonly Version[]
  readonly more: boolean
  readonly count: number
  readonly keysOnly: boolean
}

export interface PutResult {
  readonly kind: 'put'
  readonly revision: number
  readonly previous: Version | undefined
}

export interface DeleteRangeResult {
  readonly kind: 'delete-range'
  readonly revision: number
  readonly deleted: number
  readonly previous: readonly Version[]
}

export interface TxnResult {
  readonly kind: 'txn'
  readonly revision: number
  readonly succeeded: boolean
  readonly results: readonly OperationResult[]
}

export type OperationResult = RangeResult | PutResult | DeleteRangeResult | TxnResult
