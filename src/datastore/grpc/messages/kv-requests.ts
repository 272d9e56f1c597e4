import {
  type Compare,
  type DeleteRangeRequest,
  type Operation,
  type PutRequest,
  type RangeRequest,
  type TxnRequest,
  compareTargets,
} from '../../mvcc/requests.ts'
import { noBytes } from '../../mvcc/version.ts'
import type { MessageReader } from '../protobuf/message-reader.ts'
import { etcdError } from '../etcd-errors.ts'
import { StatusError, codes } from '../status.ts'

/** A nested transaction deeper than this is malformed; etcd's own limit is that of operations. */
const depthLimit = 200

/** etcdserverpb.RangeRequest */
export function readRangeRequest(reader: MessageReader): RangeRequest {
  const request = {
    kind: 'range' as const,
    key: '',
    end: '',
    limit: 0,
    revision: 0,
    sortOrder: 0,
    sortTarget: 0,
    keysOnly: false,
    countOnly: false,
    minModRevision: 0,
    maxModRevision: 0,
    minCreateRevision: 0,
    maxCreateRevision: 0,
    needsCount: true,
  }
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        request.key = reader.latin1()
        break
      case 2:
        request.end = reader.latin1()
        break
      case 3:
        request.limit = reader.number()
        break
      case 4:
        request.revision = reader.number()
        break
      case 5:
        request.sortOrder = reader.number()
        break
      case 6:
        request.sortTarget = reader.number()
        break
      case 8:
        request.keysOnly = reader.bool()
        break
      case 9:
        request.countOnly = reader.bool()
        break
      case 10:
        request.minModRevision = reader.number()
        break
      case 11:
        request.maxModRevision = reader.number()
        break
      case 12:
        request.minCreateRevision = reader.number()
        break
      case 13:
        request.maxCreateRevision = reader.number()
        break
      default:
        // Field 7, serializable: a single member's reads are all linearizable.
        reader.skip()
    }
  }
  return request
}

/** etcdserverpb.PutRequest */
export function readPutRequest(reader: MessageReader): PutRequest {
  let key = ''
  let value: Uint8Array = noBytes
  let lease = 0n
  let previousKv = false
  let ignoreValue = false
  let ignoreLease = false
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        key = reader.latin1()
        break
      case 2:
        value = reader.bytes()
        break
      case 3:
        lease = reader.int64()
        break
      case 4:
        previousKv = reader.bool()
        break
      case 5:
        ignoreValue = reader.bool()
        break
      case 6:
        ignoreLease = reader.bool()
        break
      default:
        reader.skip()
    }
  }
  return { kind: 'put', key, value, lease, previousKv, ignoreValue, ignoreLease }
}

/** etcdserverpb.DeleteRangeRequest */
export function readDeleteRangeRequest(reader: MessageReader): DeleteRangeRequest {
  let key = ''
  let end = ''
  let previousKv = false
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        key = reader.latin1()
        break
      case 2:
        end = reader.latin1()
        break
      case 3:
        previousKv = reader.bool()
        break
      default:
        reader.skip()
    }
  }
  return { kind: 'delete-range', key, end, previousKv }
}

/** An operation, or undefined for one whose oneof is empty. */
export type ReadOperation = Operation | undefined

/** A transaction as it was read: its operations are not checked yet. */
export interface ReadTxnRequest {
  readonly kind: 'txn'
  readonly compares: readonly Compare[]
  readonly success: readonly ReadOperation[]
  readonly failure: readonly ReadOperation[]
}

/** etcdserverpb.TxnRequest. One that has too many operations is not read to its end: there may be a million. */
export function readTxnRequest(reader: MessageReader, maxOperations: number, depth = 0): ReadTxnRequest {
  if (depth > depthLimit) throw new StatusError(codes.internal, 'grpc: error unmarshalling request: too deep')
  const compares: Compare[] = []
  const success: ReadOperation[] = []
  const failure: ReadOperation[] = []
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        compares.push(readCompare(reader.message()))
        break
      case 2:
        success.push(readOperation(reader.message(), maxOperations, depth))
        break
      case 3:
        failure.push(readOperation(reader.message(), maxOperations, depth))
        break
      default:
        reader.skip()
    }
    const count = Math.max(compares.length, success.length, failure.length)
    if (count > maxOperations) throw etcdError('tooManyOperations')
  }
  return { kind: 'txn', compares, success, failure }
}

/** etcdserverpb.RequestOp: of a oneof, the last one counts. */
function readOperation(reader: MessageReader, maxOperations: number, depth: number): ReadOperation {
  let operation: ReadOperation
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        operation = readRangeRequest(reader.message())
        break
      case 2:
        operation = readPutRequest(reader.message())
        break
      case 3:
        operation = readDeleteRangeRequest(reader.message())
        break
      case 4:
        // Its own operations are checked along with it, before anything reads them as checked.
        operation = readTxnRequest(reader.message(), maxOperations, depth + 1) as TxnRequest
        break
      default:
        reader.skip()
    }
  }
  return operation
}

/** Which field of a Compare's union belongs to which target. */
const targetOfField: Readonly<Record<number, number>> = {
  4: compareTargets.version,
  5: compareTargets.create,
  6: compareTargets.mod,
  7: compareTargets.value,
  8: compareTargets.lease,
}

/** etcdserverpb.Compare. A union that belongs to another target counts as zero, as in etcd. */
function readCompare(reader: MessageReader): Compare {
  let result = 0
  let target = 0
  let key = ''
  let end = ''
  let unionTarget: number | undefined
  let number = 0
  let lease = 0n
  let value: Uint8Array = noBytes
  while (reader.next()) {
    const { field } = reader
    switch (field) {
      case 1:
        result = reader.number()
        break
      case 2:
        target = reader.number()
        break
      case 3:
        key = reader.latin1()
        break
      case 4:
      case 5:
      case 6:
        unionTarget = targetOfField[field]
        number = reader.number()
        break
      case 7:
        unionTarget = targetOfField[field]
        value = reader.bytes()
        break
      case 8:
        unionTarget = targetOfField[field]
        lease = reader.int64()
        break
      case 64:
        end = reader.latin1()
        break
      default:
        reader.skip()
    }
  }
  if (unionTarget === target) return { result, target, key, end, number, lease, value }
  return { result, target, key, end, number: 0, lease: 0n, value: noBytes }
}

/** etcdserverpb.CompactionRequest */
export function readCompactionRequest(reader: MessageReader): { revision: number; physical: boolean } {
  let revision = 0
  let physical = false
  while (reader.next()) {
    if (reader.field === 1) revision = reader.number()
    else if (reader.field === 2) physical = reader.bool()
    else reader.skip()
  }
  return { revision, physical }
}
