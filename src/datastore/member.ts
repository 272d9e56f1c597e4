import { AppError } from '../base/errors.ts'
import { EtcdClient, type EtcdServer } from './grpc/client.ts'
import { findField, MessageReader } from './grpc/protobuf/message-reader.ts'
import { MessageWriter } from './grpc/protobuf/message-writer.ts'

/** etcdserverpb.RangeRequest */
const rangeTags = { key: 0x0a, serializable: 0x38, keysOnly: 0x40 } as const
/** etcdserverpb.RangeResponse.kvs, KeyValue.value */
const rangeFields = { keyValues: 2, value: 5 } as const
/** ResponseHeader, with which every reply begins, and its cluster_id */
const headerFields = { header: 1, clusterId: 1 } as const
/** etcdserverpb.StatusResponse */
const statusFields = {
  ...{ header: 1, version: 2, bytes: 3, leader: 4, applied: 7, errors: 8, bytesInUse: 9, isLearner: 10 },
  quotaBytes: 12,
} as const
/** etcdserverpb.TxnRequest, Compare, RequestOp, PutRequest */
const txnTags = { compare: 0x0a, success: 0x12, failure: 0x1a } as const
const compareTags = { key: 0x1a, version: 0x20, rangeEnd: 0x202 } as const
const operationTags = { range: 0x0a, put: 0x12 } as const
const putTags = { key: 0x0a, value: 0x12 } as const
/** etcdserverpb.TxnResponse.succeeded and responses, ResponseOp.response_range */
const txnFields = { succeeded: 2, responses: 3, range: 1 } as const

/** ResponseHeader.member_id; etcdserverpb.MemberListResponse.members, Member; MemberUpdateRequest */
const memberIdField = 2
const membersField = 2
const memberFields = { id: 1, name: 2, peerUrls: 3, clientUrls: 4, isLearner: 5 } as const
const linearizableTag = 0x08
const updateTags = { id: 0x08, peerUrls: 0x12 } as const
/** etcdserverpb.MemberAddRequest; MemberPromoteRequest and MemberRemoveRequest */
const addTags = { peerUrls: 0x0a, isLearner: 0x10 } as const
const idTag = 0x08

/** google.rpc.Code: etcd answers so where users and roles are, and it is healthy. */
const permissionDenied = 7

/** A member as the cluster has it; etcd's limits hold for its texts. */
export interface ListedMember {
  readonly id: bigint
  /** '': it was added, and has never started. */
  readonly name: string
  readonly peerUrls: readonly string[]
  readonly clientUrls: readonly string[]
  readonly isLearner: boolean
}

/** What a member says of itself. */
export interface MemberStatus {
  readonly id: bigint
  readonly version: string
  /** In etcd's words: no leader, an alarm. */
  readonly errors: readonly string[]
  /** Of its database, and of what of it is not free. */
  readonly bytes: number
  readonly bytesInUse: number
  /** Which it takes writes up to; 0: one before 3.6 does not say. */
  readonly quotaBytes: number
  /** The id of the member that leads; 0: none. */
  readonly leader: bigint
  readonly isLearner: boolean
  /** How far it has what the leader has told it. */
  readonly applied: bigint
}

/** A member of an etcd cluster, or another server of etcd's API, as who stands in front of it sees it. */
export class Member implements Disposable {
  readonly #client: EtcdClient

  constructor(server: EtcdServer) {
    this.#client = new EtcdClient(server)
  }

  /**
   * Resolves when it can read the newest state of `key`, for which it needs a leader with a majority; as /health does
   * (etcdhttp/health.go), and with the id of its cluster, if it tells. With `isLocal` it is enough that it answers. Rejects as EtcdClient.call.
   */
  async read(
    key: string,
    { isLocal, signal }: { isLocal: boolean; signal: AbortSignal },
  ): Promise<{ clusterId: bigint | undefined }> {
    const request = new MessageWriter()
    request.text(rangeTags.key, key)
    request.bool(rangeTags.serializable, isLocal)
    request.bool(rangeTags.keysOnly, true)
    const framed = request.framed()
    try {
      const reply = await this.#client.call({ method: '/etcdserverpb.KV/Range', framed, signal })
      const id = findField(new MessageReader(reply), [headerFields.header, headerFields.clusterId])
      return { clusterId: id?.uint64() }
    } catch (error) {
      if (!(error instanceof AppError) || error.fields['status'] !== permissionDenied) throw error
      return { clusterId: undefined }
    }
  }

  /** The newest value of a key; undefined: it is not there. */
  async get(key: string, signal: AbortSignal): Promise<string | undefined> {
    const request = new MessageWriter()
    request.text(rangeTags.key, key)
    const framed = request.framed()
    const reply = await this.#client.call({ method: '/etcdserverpb.KV/Range', framed, signal })
    return findField(new MessageReader(reply), [rangeFields.keyValues, rangeFields.value])?.text()
  }

  async put(key: string, value: string, signal: AbortSignal): Promise<void> {
    const request = new MessageWriter()
    request.text(putTags.key, key)
    request.text(putTags.value, value)
    const framed = request.framed()
    await this.#client.call({ method: '/etcdserverpb.KV/Put', framed, signal })
  }

  async status(signal: AbortSignal): Promise<MemberStatus> {
    const framed = new MessageWriter().framed()
    const reply = await this.#client.call({ method: '/etcdserverpb.Maintenance/Status', framed, signal })
    const response = new MessageReader(reply)
    const errors: string[] = []
    const found = {
      id: 0n,
      version: '',
      bytes: 0,
      bytesInUse: 0,
      quotaBytes: 0,
      leader: 0n,
      isLearner: false,
      applied: 0n,
    }
    while (response.next()) {
      const { field } = response
      if (field === statusFields.header)
        found.id = findField(response.message(), [memberIdField])?.uint64() ?? 0n
      else if (field === statusFields.version) found.version = response.text()
      else if (field === statusFields.errors) errors.push(response.text())
      else if (field === statusFields.bytes) found.bytes = response.number()
      else if (field === statusFields.bytesInUse) found.bytesInUse = response.number()
      else if (field === statusFields.quotaBytes) found.quotaBytes = response.number()
      else if (field === statusFields.leader) found.leader = response.uint64()
      else if (field === statusFields.applied) found.applied = response.uint64()
      else if (field === statusFields.isLearner) found.isLearner = response.bool()
      else response.skip()
    }
    return { ...found, errors }
  }

  /** Gives free space of its database back to the disk; until then it answers nobody. */
  async defragment(signal: AbortSignal): Promise<void> {
    const framed = new MessageWriter().framed()
    await this.#client.call({ method: '/etcdserverpb.Maintenance/Defragment', framed, signal })
  }

  /** All members of its cluster, as a majority has them. */
  async members(signal: AbortSignal): Promise<ListedMember[]> {
    const request = new MessageWriter()
    request.bool(linearizableTag, true)
    const framed = request.framed()
    const reply = await this.#client.call({ method: '/etcdserverpb.Cluster/MemberList', framed, signal })
    const response = new MessageReader(reply)
    const members: ListedMember[] = []
    while (response.next()) {
      if (response.field === membersField) members.push(listedMember(response.message()))
      else response.skip()
    }
    return members
  }

  /** Has the others reach a member there from now on. */
  async updateMember(id: bigint, peerUrls: readonly string[], signal: AbortSignal): Promise<void> {
    const request = new MessageWriter()
    request.bigint(updateTags.id, id)
    for (const url of peerUrls) request.text(updateTags.peerUrls, url)
    const framed = request.framed()
    await this.#client.call({ method: '/etcdserverpb.Cluster/MemberUpdate', framed, signal })
  }

  /** Adds one that does not vote yet; when it is there is for its own start. */
  async addLearner(peerUrl: string, signal: AbortSignal): Promise<void> {
    const request = new MessageWriter()
    request.text(addTags.peerUrls, peerUrl)
    request.bool(addTags.isLearner, true)
    const framed = request.framed()
    await this.#client.call({ method: '/etcdserverpb.Cluster/MemberAdd', framed, signal })
  }

  /** Has a learner vote, which etcd refuses until it has caught up. */
  async promote(id: bigint, signal: AbortSignal): Promise<void> {
    await this.#change('MemberPromote', id, signal)
  }

  /** Takes a member out for good: it never comes back as who it was. */
  async remove(id: bigint, signal: AbortSignal): Promise<void> {
    await this.#change('MemberRemove', id, signal)
  }

  async #change(method: 'MemberPromote' | 'MemberRemove', id: bigint, signal: AbortSignal): Promise<void> {
    const request = new MessageWriter()
    request.bigint(idTag, id)
    const framed = request.framed()
    await this.#client.call({ method: `/etcdserverpb.Cluster/${method}`, framed, signal })
  }

  /**
   * Puts the value when neither the key nor any below `prefix` is there. Returns what the key has then; undefined: it is not there,
   * and others are.
   */
  async claim(
    { key, value, prefix }: { key: string; value: string; prefix: string },
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const put = new MessageWriter()
    put.text(putTags.key, key)
    put.text(putTags.value, value)
    const get = new MessageWriter()
    get.text(rangeTags.key, key)
    const request = new MessageWriter()
    request.bytes(txnTags.compare, isAbsent(key))
    // '0' is what follows '/'.
    request.bytes(txnTags.compare, isAbsent(`${prefix}/`, `${prefix}0`))
    request.bytes(txnTags.success, operation(operationTags.put, put))
    request.bytes(txnTags.failure, operation(operationTags.range, get))
    const framed = request.framed()
    const reply = await this.#client.call({ method: '/etcdserverpb.KV/Txn', framed, signal })
    if (findField(new MessageReader(reply), [txnFields.succeeded])?.bool()) return value
    const path = [txnFields.responses, txnFields.range, rangeFields.keyValues, rangeFields.value]
    return findField(new MessageReader(reply), path)?.text()
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]()
  }
}

function listedMember(reader: MessageReader): ListedMember {
  const [peerUrls, clientUrls]: [string[], string[]] = [[], []]
  const found = { id: 0n, name: '', isLearner: false }
  while (reader.next()) {
    const { field } = reader
    if (field === memberFields.id) found.id = reader.uint64()
    else if (field === memberFields.name) found.name = reader.text()
    else if (field === memberFields.peerUrls) peerUrls.push(reader.text())
    else if (field === memberFields.clientUrls) clientUrls.push(reader.text())
    else if (field === memberFields.isLearner) found.isLearner = reader.bool()
    else reader.skip()
  }
  return { ...found, peerUrls, clientUrls }
}

function operation(tag: number, writer: MessageWriter): Buffer {
  const message = new MessageWriter()
  message.bytes(tag, writer.bytesWritten())
  return message.bytesWritten()
}

/** A comparison that holds when the key, or all from it to `end`, are not there: VERSION EQUAL 0, which is in 0 but for the last. */
function isAbsent(key: string, end = ''): Buffer {
  const compare = new MessageWriter()
  compare.text(compareTags.key, key)
  compare.raw(Uint8Array.of(compareTags.version, 0))
  compare.text(compareTags.rangeEnd, end)
  return compare.bytesWritten()
}
