import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'

import { describeError, errorCode } from '../../base/errors.ts'
import type { DatabaseOptions } from './schema.ts'
import type { SpaceUse } from './space.ts'
import { LogWriter } from './writer.ts'

/** How long nothing must be written until the WAL is emptied and cut. */
const idleMs = 5000
/** The space is measured again after this much was written. */
const measureBytes = 256 * 1024

/** To the writer: a batch; to write again after a failure; to finish. */
export type WriterRequest =
  | { readonly batch: Uint8Array }
  | { readonly resume: true }
  | { readonly close: true }

/** From the writer; batches are counted in the order of their arrival. */
export type WriterReply =
  | { readonly kind: 'committed'; readonly batches: number; readonly space?: SpaceUse }
  /** No batch since the last commit is on disk, and none will be until the request to resume. */
  | { readonly kind: 'failed'; readonly code: string; readonly message: string }
  | { readonly kind: 'closed' }

/**
 * The thread that waits for the disk, so that reads and watches never do. All that has arrived while a
 * commit was on its way to the disk goes into the next one; what is left to do for the file (checkpoint,
 * free pages) is done between commits, after their acknowledgement.
 */
export function runLogWriter(port: MessagePort, options: DatabaseOptions): void {
  let opened: LogWriter | undefined
  let batches = 0
  let unmeasuredBytes = measureBytes
  let isBroken = false
  let idleTimer: NodeJS.Timeout | undefined

  const reply = (message: WriterReply): void => port.postMessage(message)

  // The thread starts while the database is being made or migrated; its first batch comes after that.
  const open = (): LogWriter => (opened ??= new LogWriter(options))

  const commit = (pending: readonly Uint8Array[]): void => {
    batches += pending.length
    // What builds on a lost batch must not be written either.
    if (isBroken) return
    try {
      open().write(pending)
    } catch (thrown) {
      isBroken = true
      return reply({ kind: 'failed', code: errorCode(thrown) ?? 'UNKNOWN', message: describeError(thrown) })
    }
    for (const batch of pending) unmeasuredBytes += batch.length
    if (unmeasuredBytes < measureBytes) return reply({ kind: 'committed', batches })
    unmeasuredBytes = 0
    reply({ kind: 'committed', batches, space: open().space() })
  }

  const tidy = (): void => {
    opened?.checkpoint()
    if (opened?.vacuumStep()) setImmediate(tidy)
    idleTimer ??= setTimeout(() => {
      idleTimer = undefined
      opened?.checkpoint({ force: true })
    }, idleMs).unref()
    idleTimer.refresh()
  }

  const close = (): void => {
    clearTimeout(idleTimer)
    opened?.close()
    reply({ kind: 'closed' })
    port.close()
  }

  port.on('message', (first: WriterRequest) => {
    const pending: Uint8Array[] = []
    let request: WriterRequest | undefined = first
    while (request !== undefined && 'batch' in request) {
      pending.push(request.batch)
      request = (receiveMessageOnPort(port) as { message: WriterRequest } | undefined)?.message
    }
    if (pending.length > 0) {
      commit(pending)
      tidy()
    }
    if (request === undefined) return
    if ('resume' in request) isBroken = false
    else close()
  })
}
