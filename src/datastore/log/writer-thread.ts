import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'

import { describeError, errorCode } from '../../base/errors.ts'
import { hasRoom, isNoSpace } from './no-space.ts'
import type { DatabaseOptions } from './schema.ts'
import type { SpaceUse } from './space.ts'
import { LogWriter } from './writer.ts'

/** How long nothing must be written until the WAL is emptied and cut. */
const idleMs = 5000
/** The space is measured again after this much was written. */
const measureBytes = 256 * 1024
/** No more than this goes into one transaction, but for a single batch: it bounds the WAL and the wait. */
const transactionBytes = 8 * 1024 * 1024

/** To the writer: a batch; to write again after a failure; to give back all free space; to look for room; to finish. */
export type WriterRequest =
  | { readonly batch: Uint8Array<ArrayBuffer> }
  | { readonly resume: true }
  | { readonly tidy: true }
  | { readonly tryRoom: true }
  | { readonly close: true }

/** From the writer; batches are counted in the order of their arrival. */
export type WriterReply =
  | {
      readonly kind: 'committed'
      readonly batches: number
      readonly durationMs: number
      /** The memory of the batches that were committed. */
      readonly written: readonly ArrayBuffer[]
      readonly space?: SpaceUse
    }
  /** No batch since the last commit is on disk, and none will be until the request to resume. */
  | {
      readonly kind: 'failed'
      readonly code: string
      readonly message: string
      readonly isNoSpace: boolean
    }
  /** Free space was given back, all of it when that was asked for. */
  | { readonly kind: 'tidied'; readonly space: SpaceUse; readonly isAll: boolean }
  | { readonly kind: 'room-tried'; readonly hasRoom: boolean }
  | { readonly kind: 'closed' }

/**
 * The thread that waits for the disk, so that reads and watches never do. All that has arrived while a
 * commit was on its way to the disk goes into the next one; what is left to do for the file (checkpoint,
 * free pages) is done in steps between commits, after their acknowledgement.
 */
export function runLogWriter(port: MessagePort, options: DatabaseOptions): void {
  const thread = new WriterThread(port, options)
  port.on('message', (request: WriterRequest) => thread.take(request))
}

class WriterThread {
  readonly #port: MessagePort
  readonly #options: DatabaseOptions
  #opened: LogWriter | undefined
  #batches = 0
  #unmeasuredBytes = measureBytes
  #isBroken = false
  #isTidying = false
  #isTidyAsked = false
  #idleTimer: NodeJS.Timeout | undefined

  constructor(port: MessagePort, options: DatabaseOptions) {
    this.#port = port
    this.#options = options
  }

  take(first: WriterRequest): void {
    let pending: Uint8Array<ArrayBuffer>[] = []
    let pendingBytes = 0
    for (let request: WriterRequest | undefined = first; request !== undefined; request = this.#receive()) {
      if ('batch' in request) {
        pending.push(request.batch)
        pendingBytes += request.batch.length
        if (pendingBytes < transactionBytes) continue
      }
      this.#commit(pending, pendingBytes)
      // More is waiting: the WAL must not grow until it has all been written.
      if (pendingBytes > 0) this.#withoutSpace(() => this.#writer.checkpoint())
      pending = []
      pendingBytes = 0
      if ('resume' in request) this.#isBroken = false
      else if ('tidy' in request) this.#isTidyAsked = true
      else if ('tryRoom' in request) this.#reply({ kind: 'room-tried', hasRoom: hasRoom(this.#options.path) })
      else if ('close' in request) return this.#close()
    }
    this.#commit(pending, pendingBytes)
    this.#tidyLater()
  }

  /** The thread starts while the database is being made or migrated; its first request comes after that. */
  get #writer(): LogWriter {
    return (this.#opened ??= new LogWriter(this.#options))
  }

  #reply(message: WriterReply, transferred: ArrayBuffer[] = []): void {
    this.#port.postMessage(message, transferred)
  }

  #receive(): WriterRequest | undefined {
    return (receiveMessageOnPort(this.#port) as { message: WriterRequest } | undefined)?.message
  }

  #commit(pending: readonly Uint8Array<ArrayBuffer>[], pendingBytes: number): void {
    if (pending.length === 0) return
    this.#batches += pending.length
    // What builds on a lost batch must not be written either.
    if (this.#isBroken) return
    const startMs = performance.now()
    try {
      this.#writer.write(pending)
    } catch (thrown) {
      return this.#fail(thrown)
    }
    const written = pending.map(({ buffer }) => buffer)
    const committed = {
      kind: 'committed',
      batches: this.#batches,
      durationMs: performance.now() - startMs,
      written,
    } as const
    this.#unmeasuredBytes += pendingBytes
    if (this.#unmeasuredBytes < measureBytes) return this.#reply(committed, written)
    this.#unmeasuredBytes = 0
    this.#reply({ ...committed, space: this.#writer.space() }, written)
  }

  #fail(thrown: unknown): void {
    this.#isBroken = true
    const code = errorCode(thrown) ?? 'UNKNOWN'
    this.#reply({
      kind: 'failed',
      code,
      message: describeError(thrown),
      isNoSpace: isNoSpace(code, this.#options.path),
    })
  }

  #tidyLater(): void {
    this.#idleTimer ??= setTimeout(() => this.#idle(), idleMs).unref()
    this.#idleTimer.refresh()
    if (this.#isTidying) return
    this.#isTidying = true
    setImmediate(() => {
      this.#isTidying = false
      this.#withoutSpace(() => this.#tidyStep())
    })
  }

  #tidyStep(): void {
    const writer = this.#writer
    writer.checkpoint()
    const isAll = this.#isTidyAsked
    const outcome = writer.vacuumStep({ isAll })
    if (outcome === 'more') return this.#tidyLater()
    if (!isAll && outcome === 'nothing') return
    if (isAll) writer.checkpoint({ isForced: true })
    this.#isTidyAsked = false
    this.#reply({ kind: 'tidied', space: writer.space(), isAll })
  }

  #idle(): void {
    this.#idleTimer = undefined
    this.#withoutSpace(() => this.#writer.checkpoint({ isForced: true }))
  }

  /** Tidying needs space of its own: without any it waits for the next time. */
  #withoutSpace(tidy: () => void): void {
    try {
      tidy()
    } catch (thrown) {
      if (!isNoSpace(errorCode(thrown) ?? '', this.#options.path)) return this.#fail(thrown)
      if (!this.#isTidyAsked) return
      this.#isTidyAsked = false
      this.#reply({ kind: 'tidied', space: this.#writer.space(), isAll: true })
    }
  }

  #close(): void {
    clearTimeout(this.#idleTimer)
    this.#opened?.close()
    this.#reply({ kind: 'closed' })
    this.#port.close()
  }
}
