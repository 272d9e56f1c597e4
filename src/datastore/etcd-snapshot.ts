import { createWriteStream } from 'node:fs'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { AppError } from '../base/errors.ts'
import { privateMode } from '../base/files.ts'
import { TimeLimit } from '../base/time-limit.ts'
import { EtcdClient, type EtcdServer } from './grpc/client.ts'
import { findField, MessageReader } from './grpc/protobuf/message-reader.ts'
import { MessageWriter } from './grpc/protobuf/message-writer.ts'

/** etcdserverpb.SnapshotResponse */
const blobField = 3
/** Between two messages of it: a disk may be slow. */
const silenceLimitMs = 60_000

/**
 * Takes what an etcd has at one moment into the new file `path`, with its digest at the end, as `etcdctl snapshot save` does.
 * Never more than a message of it is in memory.
 */
export async function fetchEtcdSnapshot(given: {
  readonly server: EtcdServer
  readonly path: string
  /** More than that is no snapshot of it. */
  readonly limitBytes: number
  readonly signal?: AbortSignal
}): Promise<void> {
  const { server, path, limitBytes, signal } = given
  using client = new EtcdClient(server)
  using limit = new TimeLimit('get more of a snapshot of etcd', silenceLimitMs)
  let bytes = 0
  const blobs = async function* (): AsyncGenerator<Buffer> {
    const messages = client.stream({
      method: '/etcdserverpb.Maintenance/Snapshot',
      framed: new MessageWriter().framed(),
      signal: signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]),
    })
    for await (const message of messages) {
      limit.pause()
      const blob = findField(new MessageReader(message), [blobField])?.bytes()
      bytes += blob?.length ?? 0
      if (bytes > limitBytes) throw new Error(`it has more than ${limitBytes} bytes`)
      // A view of what the next message may be read into.
      if (blob !== undefined) yield Buffer.from(blob)
      limit.begin()
    }
  }
  try {
    await pipeline(Readable.from(blobs()), createWriteStream(path, { flags: 'wx', mode: privateMode }))
  } catch (cause) {
    throw new AppError('cannot take a snapshot of etcd', { code: 'ETCD_SNAPSHOT', path }, { cause })
  }
}
