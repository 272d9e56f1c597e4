import { type FileHandle, open } from 'node:fs/promises'

import { describeError } from '../../../base/errors.ts'
import type { Call } from '../http2/call.ts'
import { type Service, freshWriter, unary } from '../service.ts'
import { StatusError, codes } from '../status.ts'
import { storageVersion } from './maintenance.ts'

/** etcd sends 32 KiB at once (api/v3rpc/maintenance.go, snapshotSendBufferSize); fewer messages take less time. */
const blobBytes = 128 * 1024
const digestBytes = 32
/** Each has a file as large as the database until its client has taken all of it, or is gone. */
const snapshotsLimit = 4

const snapshotTags = { remainingBytes: 0x10, blob: 0x1a, version: 0x22 } as const

/** Makes the files that are sent, one at a time. */
export interface SnapshotFiles {
  /** A file of etcd with its digest at the end, which `dispose` removes. */
  make(signal: AbortSignal): Promise<{ readonly path: string } & AsyncDisposable>
}

/** etcdserverpb.Maintenance, Snapshot: the file, then its SHA-256 as a message of its own. */
export function snapshotService(files: SnapshotFiles): Service {
  let taken = 0
  const snapshot = unary((_reader, call) => {
    if (taken === snapshotsLimit) {
      const reason = `${snapshotsLimit} snapshots are being taken; more are not taken at a time`
      throw new StatusError(codes.resourceExhausted, reason)
    }
    taken++
    const gone = new AbortController()
    call.onCancel = () => gone.abort()
    sendSnapshot(call, files, gone.signal)
      .catch((thrown: unknown) => {
        if (call.isOpen) call.fail(toStatus(thrown))
      })
      .finally(() => taken--)
  })
  return [['/etcdserverpb.Maintenance/Snapshot', snapshot]]
}

async function sendSnapshot(call: Call, files: SnapshotFiles, signal: AbortSignal): Promise<void> {
  await using made = await files.make(signal)
  const file = await open(made.path)
  try {
    const { size } = await file.stat()
    const dataBytes = size - digestBytes
    for (let sent = 0; sent < dataBytes && call.isOpen; ) {
      const blob = await readAt(file, sent, Math.min(blobBytes, dataBytes - sent))
      sent += blob.length
      send(call, blob, dataBytes - sent)
      await untilSent(call, signal)
    }
    if (!call.isOpen) return
    send(call, await readAt(file, dataBytes, digestBytes), 0)
    call.end()
  } finally {
    await file.close()
  }
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, position)
  if (bytesRead < length) throw new Error('the snapshot file is shorter than it was')
  return buffer
}

function send(call: Call, blob: Buffer, remainingBytes: number): void {
  const writer = freshWriter()
  writer.uint(snapshotTags.remainingBytes, remainingBytes)
  writer.bytes(snapshotTags.blob, blob)
  writer.text(snapshotTags.version, storageVersion)
  call.send(writer)
}

/** A slow client costs the memory of one message. */
function untilSent(call: Call, signal: AbortSignal): Promise<void> {
  if (call.queuedBytes === 0) return Promise.resolve()
  return new Promise((resolve) => {
    const done = (): void => {
      call.onDrain = undefined
      signal.removeEventListener('abort', done)
      resolve()
    }
    call.onDrain = done
    signal.addEventListener('abort', done)
  })
}

function toStatus(thrown: unknown): StatusError {
  return thrown instanceof StatusError
    ? thrown
    : new StatusError(codes.unavailable, `cannot make a snapshot: ${describeError(thrown)}`)
}
