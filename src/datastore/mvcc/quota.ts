import type { Operation, PutRequest, TxnRequest } from './requests.ts'

/** What a request may add to the database, as etcd estimates it: server/storage/quota.go. */

/** For all that is kept beside a key and its value, and for a lease. */
const keyOverheadBytes = 256
export const leaseCostBytes = 64

export function putCostBytes({ key, value }: PutRequest): number {
  return keyOverheadBytes + key.length + value.length
}

/** Of the dearer branch, as nobody knows yet which one is taken; 0 for a transaction that puts nothing. */
export function txnCostBytes({ success, failure }: TxnRequest): number {
  return Math.max(operationsCostBytes(success), operationsCostBytes(failure))
}

/** Unlike etcd's, with what is nested. */
function operationsCostBytes(operations: readonly Operation[]): number {
  let bytes = 0
  for (const operation of operations) {
    if (operation.kind === 'put') bytes += putCostBytes(operation)
    else if (operation.kind === 'txn') bytes += txnCostBytes(operation)
  }
  return bytes
}
