import type { EtcdClient } from '../../test/unit/datastore/etcd-client.ts'
import { message } from '../../test/unit/datastore/wire.ts'

const operationsPerTransaction = 100
const transactionsInFlight = 4

export const keyOf = (place: number): string => `/registry/pods/default/pod-${String(place).padStart(7, '0')}`

/** Puts keys with values of a size, a hundred in one transaction. */
export async function fill(
  client: EtcdClient,
  { keys, valueBytes }: { keys: number; valueBytes: number },
): Promise<void> {
  let next = 0
  const work = async (): Promise<void> => {
    while (next < keys) {
      const first = next
      next = Math.min(keys, first + operationsPerTransaction)
      const operations: Buffer[] = []
      for (let place = first; place < next; place++) {
        const value = Buffer.alloc(valueBytes, `${place}.`)
        operations.push(message({ 2: message({ 2: message({ 1: keyOf(place), 2: value }) }) }))
      }
      await client.call('KV/Txn', Buffer.concat(operations))
    }
  }
  await Promise.all(Array.from({ length: transactionsInFlight }, work))
}
