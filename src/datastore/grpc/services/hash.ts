import type { HashScan, LoggedState } from '../../mvcc/hash-scan.ts'
import { crc32c } from '../crc32c.ts'
import { toStatus } from '../etcd-errors.ts'
import type { Call } from '../http2/call.ts'
import { writeKeyValueFields } from '../messages/key-value.ts'
import type { MessageReader } from '../protobuf/message-reader.ts'
import { MessageWriter } from '../protobuf/message-writer.ts'
import { type Service, type ServiceContext, freshWriter, unary } from '../service.ts'

const hashTag = 0x10
const compactRevisionTag = 0x18
const hashRevisionTag = 0x20

/** etcd's key of a revision: eight bytes, "_", eight bytes, and "t" for a tombstone (mvcc/revision.go). */
const revisionKeyBytes = 17
const separator = 0x5f
const tombstoneMark = 0x74

/**
 * Hash and HashKV of etcdserverpb.Maintenance. HashKV is etcd's own, byte for byte: two servers with the same
 * history answer the same. Hash, which etcd makes of all of its file, is HashKV's at the newest revision.
 */
export function hashMethods(context: ServiceContext): Service {
  const { engine, header } = context
  const runs = new HashRuns()

  const run = (call: Call, revision: number, withRevisions: boolean): void => {
    runs.add(
      call,
      () => engine.scanForHash(revision),
      ({ hash, scan }) => {
        const writer = freshWriter()
        header.write(writer, engine.store.revision)
        writer.uint(hashTag, hash)
        if (withRevisions) {
          writer.bigint(compactRevisionTag, BigInt(scan.compactedRevision))
          writer.uint(hashRevisionTag, scan.revision)
        }
        call.reply(writer)
      },
    )
  }

  return [
    ['/etcdserverpb.Maintenance/Hash', unary((_reader, call) => run(call, 0, false))],
    ['/etcdserverpb.Maintenance/HashKV', unary((reader, call) => run(call, readRevision(reader), true))],
  ]
}

interface Run {
  readonly call: Call
  readonly open: () => HashScan
  readonly done: (result: { hash: number; scan: HashScan }) => void
}

/** One hash at a time: each reads the whole database. */
class HashRuns {
  readonly #waiting: Run[] = []
  #isRunning = false

  add(call: Call, open: Run['open'], done: Run['done']): void {
    this.#waiting.push({ call, open, done })
    if (!this.#isRunning) this.#start()
  }

  #start(): void {
    const run = this.#waiting.shift()
    this.#isRunning = run !== undefined
    if (run === undefined) return
    let scan: HashScan | undefined
    const hasher = new Hasher()
    const step = (): void => {
      try {
        scan ??= run.open()
        if (run.call.isOpen && scan.slice(hasher.add)) {
          setImmediate(step)
          return
        }
        run.done({ hash: hasher.sum, scan })
      } catch (thrown) {
        run.call.fail(toStatus(thrown))
      }
      scan?.close()
      this.#start()
    }
    step()
  }
}

class Hasher {
  readonly #writer = new MessageWriter()
  readonly #revisionKey = Buffer.alloc(revisionKeyBytes + 1)
  /** The name of etcd's bucket comes first. */
  sum = crc32c(Buffer.from('key'))

  readonly add = (state: LoggedState): void => {
    const key = this.#revisionKey
    key.writeBigUInt64BE(BigInt(state.revision), 0)
    key[8] = separator
    key.writeBigUInt64BE(BigInt(state.sub), 9)
    key[revisionKeyBytes] = tombstoneMark
    const isTombstone = state.version === 0
    this.sum = crc32c(isTombstone ? key : key.subarray(0, revisionKeyBytes), this.sum)
    this.#writer.reset()
    // What etcd keeps for a tombstone has the key alone.
    writeKeyValueFields(this.#writer, isTombstone ? { ...state, revision: 0 } : state, state.value)
    this.sum = crc32c(this.#writer.bytesWritten(), this.sum)
  }
}

function readRevision(reader: MessageReader): number {
  let revision = 0
  while (reader.next()) {
    if (reader.field === 1) revision = reader.number()
    else reader.skip()
  }
  return revision
}
