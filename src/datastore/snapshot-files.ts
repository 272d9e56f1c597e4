import { once } from 'node:events'
import { mkdirSync, rmSync, statfsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Worker } from 'node:worker_threads'

import { privateDirectoryMode } from '../base/files.ts'
import type { SpaceUse } from './log/log.ts'
import type { SnapshotFiles } from './grpc/services/snapshot.ts'
import { StatusError, codes } from './grpc/status.ts'
import { type ExportReply, type WorkerData, fromPlainError } from './messages.ts'

/** How much larger than the live part of the database its copy in etcd's format may be. */
const sizeFactor = 1.25
const reservedBytes = 64 * 1024 * 1024
const exportLimits = { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 16 }

interface Options {
  readonly path: string
  readonly nativeBinding: string | undefined
  /** The program etcd-file. */
  readonly program: string | undefined
  readonly workerUrl: URL
  readonly space: () => SpaceUse
}

/**
 * Copies of the database in etcd's format, each made by a thread of its own from one state of the
 * database. They lie beside it, one at a time, and what a crash left is removed first.
 */
export function snapshotFiles({ path, nativeBinding, program, workerUrl, space }: Options): SnapshotFiles {
  const directory = `${path}.export`
  let turn: Promise<unknown> = Promise.resolve()
  let count = 0
  rmSync(directory, { recursive: true, force: true })

  const makeNow = async (signal: AbortSignal): Promise<{ path: string } & AsyncDisposable> => {
    if (program === undefined)
      throw new StatusError(codes.unimplemented, 'snapshots need the program etcd-file')
    signal.throwIfAborted()
    refuseWithoutSpace(dirname(path), space().bytesInUse)
    mkdirSync(directory, { recursive: true, mode: privateDirectoryMode })
    const target = join(directory, String(count++))
    const remove = async (): Promise<void> => rmSync(target, { force: true })
    const data: WorkerData = { role: 'export', database: { path, nativeBinding }, program, target }
    const worker = new Worker(workerUrl, { workerData: data, resourceLimits: exportLimits, name: 'export' })
    const stop = (): void => void worker.terminate()
    signal.addEventListener('abort', stop)
    try {
      const [reply] = (await once(worker, 'message', { signal })) as [ExportReply]
      if (reply.error !== undefined) throw fromPlainError(reply.error)
    } catch (thrown) {
      await worker.terminate()
      await remove()
      throw thrown
    } finally {
      signal.removeEventListener('abort', stop)
    }
    return { path: target, [Symbol.asyncDispose]: remove }
  }

  return {
    make(signal) {
      const made = turn.then(() => makeNow(signal))
      turn = made.catch(() => undefined)
      return made
    },
  }
}

/** The copy must not take the last space from the database. */
function refuseWithoutSpace(directory: string, bytesInUse: number): void {
  const { bavail, bsize } = statfsSync(directory)
  const needed = bytesInUse * sizeFactor + reservedBytes
  if (bavail * bsize >= needed) return
  throw new StatusError(
    codes.resourceExhausted,
    `cannot make a snapshot: it needs ${Math.ceil(needed / 1e6)} MB free in ${directory}`,
  )
}
