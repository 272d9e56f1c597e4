import type { Engine } from '../../mvcc/engine.ts'
import type { Operation, TxnResult } from '../../mvcc/requests.ts'
import type { Version } from '../../mvcc/version.ts'
import { withEtcdErrors } from '../etcd-errors.ts'
import type { Call } from '../http2/call.ts'
import { writeKeyValue } from '../messages/key-value.ts'
import type { MessageReader } from '../protobuf/message-reader.ts'
import { bigintFieldSize, bytesFieldSize, uintFieldSize } from '../protobuf/message-writer.ts'
import { type Service, type ServiceContext, afterCommit, freshWriter, replyAfterCommit } from '../service.ts'
import { StatusError, codes } from '../status.ts'
import {
  DeletionWait,
  clientError,
  clientUnary,
  below,
  contenderKey,
  oldestBelow,
  sessionLease,
  wasCreatedAt,
  watchFor,
} from './concurrency.ts'
import { contend } from './lock.ts'

const leaderTag = 0x12
const leaderKeyTags = { name: 0x0a, key: 0x12, revision: 0x18, lease: 0x20 } as const
const kvTag = 0x12

interface LeaderKey {
  readonly name: string
  readonly key: string
  readonly revision: number
  readonly lease: bigint
}

/** v3electionpb.Election. etcd: client/v3/concurrency/election.go. */
export function electionService(context: ServiceContext): Service {
  return [
    [
      '/v3electionpb.Election/Campaign',
      clientUnary(context, readCampaign, (request, call) => campaign(context, call, request)),
    ],
    [
      '/v3electionpb.Election/Proclaim',
      clientUnary(context, readProclaim, (request, call) => proclaim(context, call, request)),
    ],
    [
      '/v3electionpb.Election/Leader',
      clientUnary(context, readName, (name, call) => leader(context, call, name)),
    ],
    [
      '/v3electionpb.Election/Observe',
      clientUnary(context, readName, (name, call) => new Observation(context, call, name).start()),
    ],
    [
      '/v3electionpb.Election/Resign',
      clientUnary(context, readProclaim, (request, call) => resign(context, call, request.leader)),
    ],
  ]
}

function campaign(context: ServiceContext, call: Call, request: Campaign): void {
  const { engine, header } = context
  const lease = sessionLease(engine, request.lease)
  const prefix = `${request.name}/`
  const key = contenderKey(request.name, lease)
  const found = contend(context, { prefix, key, lease, value: request.value })
  const own: LeaderKey = { name: request.name, key, revision: found.createRevision, lease }
  if (Buffer.compare(found.value, request.value) !== 0) update(engine, own, request.value)
  const wait = new DeletionWait({
    engine,
    call,
    prefix,
    maxCreateRevision: found.createRevision - 1,
    done: () => {
      const writer = freshWriter()
      header.write(writer, found.result.revision)
      const size =
        bytesFieldSize(own.name.length) +
        bytesFieldSize(key.length) +
        uintFieldSize(own.revision) +
        bigintFieldSize(lease)
      writer.lengthDelimited(leaderTag, size)
      writer.latin1(leaderKeyTags.name, own.name)
      writer.latin1(leaderKeyTags.key, key)
      writer.uint(leaderKeyTags.revision, own.revision)
      writer.bigint(leaderKeyTags.lease, lease)
      call.reply(writer)
    },
  })
  call.onCancel = () => {
    wait.stop()
    // Where nothing can be written now, the key goes with its lease.
    withEtcdErrors(() => remove(engine, own))
  }
  afterCommit(context, call, (isCommitted) => {
    if (isCommitted) wait.start()
    else call.fail(clientError('noSpace'))
  })
}

function proclaim(context: ServiceContext, call: Call, { leader: own, value }: Proclaim): void {
  const key = requireLeader(own)
  context.engine.renewLease(key.lease)
  const { succeeded, revision } = update(context.engine, key, value)
  if (!succeeded) throw new StatusError(codes.unknown, 'election: not leader')
  replyAfterCommit(context, call, (writer) => context.header.write(writer, revision))
}

function resign(context: ServiceContext, call: Call, own: LeaderKey | undefined): void {
  const key = requireLeader(own)
  const { revision } = remove(context.engine, key)
  replyAfterCommit(context, call, (writer) => context.header.write(writer, revision))
}

function leader(context: ServiceContext, call: Call, name: string): void {
  const { versions, revision } = context.engine.range(oldestBelow(`${name}/`))
  const [version] = versions
  if (version === undefined) throw new StatusError(codes.unknown, 'election: no leader')
  sendLeader(context, call, version, revision)
  call.end()
}

/** Follows an election: each leader, and what it proclaims, until the client goes. */
class Observation {
  readonly #context: ServiceContext
  readonly #call: Call
  readonly #prefix: string
  #stopWatching: (() => void) | undefined

  constructor(context: ServiceContext, call: Call, name: string) {
    this.#context = context
    this.#call = call
    this.#prefix = `${name}/`
  }

  start(): void {
    this.#call.onCancel = () => this.#stopWatching?.()
    this.#find()
  }

  #find(): void {
    const { versions, revision } = this.#context.engine.range(oldestBelow(this.#prefix))
    const [version] = versions
    if (version !== undefined) return this.#follow(version, revision)
    this.#watch({ ...below(this.#prefix), startRevision: revision + 1 }, (candidate, at) => {
      if (candidate.isTombstone) return
      this.#stopWatching?.()
      this.#follow(candidate, at)
    })
  }

  #follow(version: Version, revision: number): void {
    sendLeader(this.#context, this.#call, version, revision)
    this.#watch({ key: version.key, end: '', startRevision: version.revision + 1 }, (next, at) => {
      if (!next.isTombstone) return sendLeader(this.#context, this.#call, next, at)
      this.#stopWatching?.()
      this.#find()
    })
  }

  #watch(
    range: { key: string; end: string; startRevision: number },
    event: (version: Version, revision: number) => void,
  ): void {
    this.#stopWatching = watchFor({ engine: this.#context.engine, call: this.#call }, range, event)
  }
}

function sendLeader(
  { engine, header }: ServiceContext,
  call: Call,
  version: Version,
  revision: number,
): void {
  const writer = freshWriter()
  header.write(writer, revision)
  writeKeyValue(writer, { tag: kvTag, version, value: engine.store.valueOf(version) })
  call.send(writer)
}

function update(engine: Engine, own: LeaderKey, value: Uint8Array): TxnResult {
  return whileOwned(engine, own, {
    kind: 'put',
    key: own.key,
    value,
    lease: own.lease,
    previousKv: false,
    ignoreValue: false,
    ignoreLease: false,
  })
}

function remove(engine: Engine, own: LeaderKey): TxnResult {
  return whileOwned(engine, own, { kind: 'delete-range', key: own.key, end: '', previousKv: false })
}

/** Does something if the contender's key is still the one that it created. */
function whileOwned(engine: Engine, { key, revision }: LeaderKey, operation: Operation): TxnResult {
  return engine.txn({
    kind: 'txn',
    compares: [wasCreatedAt(key, revision)],
    success: [operation],
    failure: [],
  })
}

function requireLeader(own: LeaderKey | undefined): LeaderKey {
  if (own === undefined) throw new StatusError(codes.unknown, '"leader" field must be provided')
  return own
}

interface Campaign {
  readonly name: string
  readonly lease: bigint
  readonly value: Uint8Array
}

function readCampaign(reader: MessageReader): Campaign {
  let name = ''
  let lease = 0n
  let value = Buffer.alloc(0)
  while (reader.next()) {
    if (reader.field === 1) name = reader.latin1()
    else if (reader.field === 2) lease = reader.int64()
    else if (reader.field === 3) value = Buffer.from(reader.bytes())
    else reader.skip()
  }
  return { name, lease, value }
}

interface Proclaim {
  readonly leader: LeaderKey | undefined
  readonly value: Uint8Array
}

/** ProclaimRequest; a ResignRequest is one without a value. */
function readProclaim(reader: MessageReader): Proclaim {
  let own: LeaderKey | undefined
  let value = Buffer.alloc(0)
  while (reader.next()) {
    if (reader.field === 1) own = readLeaderKey(reader.message())
    else if (reader.field === 2) value = Buffer.from(reader.bytes())
    else reader.skip()
  }
  return { leader: own, value }
}

function readLeaderKey(reader: MessageReader): LeaderKey {
  const own = { name: '', key: '', revision: 0, lease: 0n }
  while (reader.next()) {
    if (reader.field === 1) own.name = reader.latin1()
    else if (reader.field === 2) own.key = reader.latin1()
    else if (reader.field === 3) own.revision = reader.number()
    else if (reader.field === 4) own.lease = reader.int64()
    else reader.skip()
  }
  return own
}

function readName(reader: MessageReader): string {
  let name = ''
  while (reader.next()) {
    if (reader.field === 1) name = reader.latin1()
    else reader.skip()
  }
  return name
}
