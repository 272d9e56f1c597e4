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
import { WrittenKeys } from './written-keys.ts'

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

/**
 * What a list of operations writes; fails when two of them write one key. Deletes may overlap each
 * other, and so may the two branches of one transaction.
 */
function writesOf(operations: readonly Operation[]): WrittenKeys {
  const written = new WrittenKeys(operations.filter((operation) => operation.kind === 'delete-range'))
  for (const operation of operations) {
    if (operation.kind !== 'txn') continue
    const branches = [writesOf(operation.success), writesOf(operation.failure)]
    if (branches.some((branch) => written.clashesWithPutsOf(branch))) throw etcdError('duplicateKey')
    for (const branch of branches) written.join(branch)
  }
  for (const operation of operations) {
    if (operation.kind === 'put' && !written.put(operation.key)) throw etcdError('duplicateKey')
  }
  return written
}
