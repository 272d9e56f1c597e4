import { EtcdClient, type EtcdServer } from './grpc/client.ts'
import { MessageReader } from './grpc/protobuf/message-reader.ts'
import { MessageWriter } from './grpc/protobuf/message-writer.ts'
import { encryptionOfValue } from './log/encrypted.ts'

/** etcdserverpb.RangeRequest */
const rangeTags = { key: 0x0a, rangeEnd: 0x12, limit: 0x18 } as const
/** etcdserverpb.RangeResponse, KeyValue */
const replyFields = { keyValues: 2, more: 3 } as const
const keyValueFields = { key: 1, value: 5 } as const
/** A Secret has up to 1 MiB. */
const pageLimit = 50

/**
 * How many values below a prefix, which ends with a slash, are encrypted with which key, by its name; '' are those in the
 * clear. A page at a time: what is written meanwhile may be counted or not.
 */
export async function countByEncryptionKey(
  server: EtcdServer,
  prefix: string,
): Promise<ReadonlyMap<string, number>> {
  using client = new EtcdClient(server)
  const counts = new Map<string, number>()
  // '0' is what follows '/'.
  const rangeEnd = `${prefix.slice(0, -1)}0`
  for (let from: string | undefined = prefix; from !== undefined; ) {
    const request: MessageWriter = new MessageWriter()
    request.text(rangeTags.key, from)
    request.text(rangeTags.rangeEnd, rangeEnd)
    request.uint(rangeTags.limit, pageLimit)
    const reply: Buffer = await client.call({ method: '/etcdserverpb.KV/Range', framed: request.framed() })
    from = countPage(reply, counts)
  }
  return counts
}

/** Returns where the next page begins; undefined: there is none. */
function countPage(reply: Buffer, counts: Map<string, number>): string | undefined {
  const response = new MessageReader(reply)
  let last = ''
  let hasMore = false
  while (response.next()) {
    if (response.field === replyFields.more) hasMore = response.bool()
    else if (response.field === replyFields.keyValues) {
      const { key, value } = readKeyValue(response.message())
      const name = encryptionOfValue(value)?.keyName ?? ''
      counts.set(name, (counts.get(name) ?? 0) + 1)
      last = key
    } else response.skip()
  }
  return hasMore ? `${last}\0` : undefined
}

function readKeyValue(pair: MessageReader): { key: string; value: Buffer } {
  let key = ''
  let value: Buffer = Buffer.alloc(0)
  while (pair.next()) {
    if (pair.field === keyValueFields.key) key = pair.text()
    else if (pair.field === keyValueFields.value) value = pair.bytes()
    else pair.skip()
  }
  return { key, value }
}
