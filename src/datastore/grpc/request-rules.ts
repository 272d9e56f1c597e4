import type { KeyRange } from '../mvcc/key-range.ts'
import {
  type DeleteRangeRequest,
  type Operation,
  type PutRequest,
  type RangeRequest,
  type TxnRequest,
  sortOrders,
  sortTargets,
} from '../mvcc/requests.ts'
import { etcdError } from './etcd-errors.ts'
import type { ReadOperation, ReadTxnRequest } from './messages/kv-requests.ts'

/** etcd: server/etcdserver/api/v3rpc/key.go, whose checks and their order these are. */

export function checkRange({ key, sortOrder, sortTarget }: RangeRequest): void {
  if (key === '') throw etcdError('emptyKey')
  if (!(sortOrder >= sortOrders.none && sortOrder <= sortOrders.descend)) throw etcdError('invalidSortOption')
  if (!(sortTarget >= sortTargets.key && sortTarget <= sortTargets.value))
    throw etcdError('invalidSortOption')
}

export function checkPut({ key, value, lease, ignoreValue, ignoreLease }: PutRequest): void {
  if (key === '') throw etcdError('emptyKey')
  if (ignoreValue && value.length > 0) throw etcdError('valueProvided')
  if (ignoreLease && lease !== 0n) throw etcdError('leaseProvided')
}

export function checkDeleteRange({ key }: DeleteRangeRequest): void {
  if (key === '') throw etcdError('emptyKey')
}

/** Checks a transaction with all that is nested in it; what it returns can be executed. */
export function checkTxn(request: ReadTxnRequest, maxOperations: number): TxnRequest {
  checkOperations(request, maxOperations)
  const checked = request as TxnRequest
  writesOf(checked.success)
  writesOf(checked.failure)
  return checked
}

function checkOperations(request: ReadTxnRequest, maxOperations: number): void {
  const count = Math.max(request.compares.length, request.success.length, request.failure.length)
  if (count > maxOperations) throw etcdError('tooManyOperations')
  if (request.compares.some(({ key }) => key === '')) throw etcdError('emptyKey')
  for (const operation of request.success) checkOperation(operation, maxOperations - count)
  for (const operation of request.failure) checkOperation(operation, maxOperations - count)
}

function checkOperation(operation: ReadOperation, maxOperations: number): void {
  switch (operation?.kind) {
    case undefined:
      throw etcdError('keyNotFound')
    case 'range':
      return checkRange(operation)
    case 'put':
      return checkPut(operation)
    case 'delete-range':
      return checkDeleteRange(operation)
    case 'txn':
      return checkOperations(operation, maxOperations)
  }
}

interface Writes {
  readonly puts: Set<string>
  readonly deletes: KeyRange[]
}

/**
 * What a list of operations writes; fails when two of them write one key. Deletes may overlap each
 * other, and so may the two branches of one transaction.
 */
function writesOf(operations: readonly Operation[]): Writes {
  const puts = new Set<string>()
  const deletes: KeyRange[] = operations.filter((operation) => operation.kind === 'delete-range')
  const add = (key: string, isTaken: boolean): void => {
    if (isTaken || deletes.some((range) => isDeleted(range, key))) throw etcdError('duplicateKey')
    puts.add(key)
  }
  for (const operation of operations) {
    if (operation.kind !== 'txn') continue
    const success = writesOf(operation.success)
    const failure = writesOf(operation.failure)
    for (const key of success.puts) add(key, puts.has(key))
    for (const key of failure.puts) add(key, puts.has(key) && !success.puts.has(key))
    deletes.push(...success.deletes, ...failure.deletes)
  }
  for (const operation of operations) {
    if (operation.kind === 'put') add(operation.key, puts.has(operation.key))
  }
  return { puts, deletes }
}

/** As etcd compares here: an end of '\0' is a key like any other (checkIntervals). */
function isDeleted({ key, end }: KeyRange, candidate: string): boolean {
  return end === '' ? candidate === key : candidate >= key && candidate < end
}
