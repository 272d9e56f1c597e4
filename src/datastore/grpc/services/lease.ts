import { etcdError } from '../etcd-errors.ts'
import type { Call } from '../http2/call.ts'
import type { MessageReader } from '../protobuf/message-reader.ts'
import { bigintFieldSize } from '../protobuf/message-writer.ts'
import {
  type Service,
  type ServiceContext,
  afterCommit,
  freshWriter,
  replyAfterCommit,
  streaming,
  unary,
  writing,
} from '../service.ts'

const idTag = 0x10
const ttlTag = 0x18
const grantedTtlTag = 0x20
const keysTag = 0x2a
const leasesTag = 0x12
const leaseStatusIdTag = 0x08
/** What TimeToLive answers for a lease that does not exist. */
const noTtl = -1n

/** etcdserverpb.Lease */
export function leaseService(context: ServiceContext): Service {
  const { engine, header, options } = context

  const grant = writing(context, (reader, call, requestBytes) => {
    const request = readGrantRequest(reader)
    if (requestBytes > options.maxRequestBytes) throw etcdError('requestTooLarge')
    const { id, ttlSeconds } = engine.grantLease(request)
    replyAfterCommit(context, call, (writer) => {
      header.write(writer, engine.store.revision)
      writer.bigint(idTag, id)
      writer.uint(ttlTag, ttlSeconds)
    })
  })

  const revoke = writing(context, (reader, call) => {
    engine.revokeLease(readId(reader))
    const revision = engine.store.head
    replyAfterCommit(context, call, (writer) => header.write(writer, revision))
  })

  const keepAlive = streaming((call) => ({
    message: (reader) => renew(context, call, readId(reader)),
    // Replies that still wait for the disk go first.
    halfClose: () => afterCommit(context, call, () => call.end()),
  }))

  const timeToLive = unary((reader, call) => {
    const { id, keys } = readTimeToLiveRequest(reader)
    const lease = engine.lessor.get(id)
    // The keys as they are now; the reply waits until the disk has what attached them.
    const attached = keys && lease !== undefined ? [...lease.keys].sort() : []
    replyAfterCommit(context, call, (writer) => {
      header.write(writer, engine.store.revision)
      writer.bigint(idTag, id)
      if (lease === undefined) return writer.bigint(ttlTag, noTtl)
      writer.bigint(ttlTag, BigInt(Math.trunc(engine.lessor.remainingMs(lease) / 1000)))
      writer.uint(grantedTtlTag, lease.ttlSeconds)
      for (const key of attached) writer.presentLatin1(keysTag, key)
    })
  })

  const leases = unary((_reader, call) => {
    const ids = engine.lessor.list().map(({ id }) => id)
    replyAfterCommit(context, call, (writer) => {
      header.write(writer, engine.store.revision)
      for (const id of ids) {
        writer.lengthDelimited(leasesTag, bigintFieldSize(id))
        writer.bigint(leaseStatusIdTag, id)
      }
    })
  })

  return [
    ['/etcdserverpb.Lease/LeaseGrant', grant],
    ['/etcdserverpb.Lease/LeaseRevoke', revoke],
    ['/etcdserverpb.Lease/LeaseKeepAlive', keepAlive],
    ['/etcdserverpb.Lease/LeaseTimeToLive', timeToLive],
    ['/etcdserverpb.Lease/LeaseLeases', leases],
  ]
}

/** A TTL of 0 in the reply says that there is no such lease. */
function renew(context: ServiceContext, call: Call, id: bigint): void {
  const { engine, header } = context
  // Taken before, so that a client that sees a renewal at a revision knows the lease lived then.
  const { revision } = engine.store
  const ttlSeconds = engine.renewLease(id)?.ttlSeconds ?? 0
  afterCommit(context, call, (isCommitted) => {
    if (!isCommitted) return call.fail(etcdError('noSpace'))
    const writer = freshWriter()
    header.write(writer, revision)
    writer.bigint(idTag, id)
    writer.uint(ttlTag, ttlSeconds)
    call.send(writer)
  })
}

function readGrantRequest(reader: MessageReader): { id: bigint; ttlSeconds: number } {
  let id = 0n
  let ttlSeconds = 0
  while (reader.next()) {
    if (reader.field === 1) ttlSeconds = reader.number()
    else if (reader.field === 2) id = reader.int64()
    else reader.skip()
  }
  return { id, ttlSeconds }
}

/** LeaseRevokeRequest and LeaseKeepAliveRequest have the id alone. */
function readId(reader: MessageReader): bigint {
  let id = 0n
  while (reader.next()) {
    if (reader.field === 1) id = reader.int64()
    else reader.skip()
  }
  return id
}

function readTimeToLiveRequest(reader: MessageReader): { id: bigint; keys: boolean } {
  let id = 0n
  let keys = false
  while (reader.next()) {
    if (reader.field === 1) id = reader.int64()
    else if (reader.field === 2) keys = reader.bool()
    else reader.skip()
  }
  return { id, keys }
}
