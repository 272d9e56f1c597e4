import { constants, fstatSync, openSync, write, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { describeError, errorCode } from './errors.ts'

/*
 * Whoever reads the daemon's output may be stuck: a terminal after Ctrl-S, a pager, a journal whose disk hangs. The
 * daemon goes on without it:
 *
 *    line ──▶ queue (queueLimit bytes) ──▶ written once a turn of the event loop, and tried again while the descriptor is full
 *              └─▶ beyond that: counted, and told in a line of its own when there is room
 *
 * A descriptor is written without blocking, which is a property of what is open (open(2)) and not of the process: a
 * shell that shares it would find its own writes fail. So pipes and terminals are opened once more. Sockets
 * cannot be; systemd gives each unit its own.
 *
 * A file has no reader, and its disk may hang, which no descriptor tells before: it is written by a thread of libuv's, and
 * what comes meanwhile waits in the queue as for a reader.
 */

/** The bytes that wait for a reader. */
const queueLimit = 2 * 1024 * 1024

/** The most that is written at once: what a pipe holds. */
const chunkLimit = 64 * 1024

/** Between two attempts while the reader takes nothing; it doubles. */
const shortestRetryMs = 5
const longestRetryMs = 200

/** How long the end of the process waits for a reader; a file's disk that takes longer hangs. */
const exitLimitMs = 1_000

/** What a thread needs at the most to write what it has begun with, on a disk that answers. */
const threadMs = 20

interface BoundedWriterOptions {
  readonly fd: number
  /** The line that tells how many were left out, and why. */
  readonly tellLeftOut: (count: number, reason: string) => string
}

/** All that there are: they live as long as the process. */
const writers: BoundedWriter[] = []

/** Writes whole lines to a descriptor, in order, and never waits. */
export class BoundedWriter {
  readonly #fd: number
  readonly #tellLeftOut: BoundedWriterOptions['tellLeftOut']
  readonly #queue: Entry[] = []
  #queuedBytes = 0
  #leftOut = 0
  #leftOutReason = ''
  #retryMs = shortestRetryMs
  #timer: NodeJS.Timeout | undefined
  #isGone = false
  readonly #isFile: boolean
  /** A turn's lines wait for its end, or, of a file, the first entry of the queue is being written. */
  #isBusy = false
  #isInThread = false
  #hangs = false

  constructor({ fd, tellLeftOut }: BoundedWriterOptions) {
    this.#fd = withoutBlocking(fd)
    this.#isFile = isRegularFile(fd)
    this.#tellLeftOut = tellLeftOut
    if (writers.length === 0) process.on('exit', () => writers.forEach((writer) => writer.flush()))
    writers.push(this)
  }

  readonly write = (line: string): void => {
    if (this.#isGone) return
    const bytes = Buffer.from(line)
    // Once it is full, lines are left out until half of it is free: they are told together.
    const limit = this.#leftOut > 0 ? queueLimit / 2 : queueLimit
    if (this.#queuedBytes + bytes.length > limit)
      return this.#leaveOut(1, 'the reader of the log did not keep up')
    this.#enqueueLeftOut()
    this.#enqueue({ bytes, lines: 1 })
    if (this.#isFile) this.#writeAside()
    else if (this.#timer === undefined) this.#drainSoon()
  }

  #drainSoon(): void {
    if (this.#isBusy) return
    this.#isBusy = true
    setImmediate(() => {
      this.#isBusy = false
      this.#drain()
    })
  }

  #enqueue(entry: Entry): void {
    this.#queue.push(entry)
    this.#queuedBytes += entry.bytes.length
  }

  #leaveOut(lines: number, reason: string): void {
    this.#leftOut += lines
    this.#leftOutReason = reason
  }

  #enqueueLeftOut(): void {
    if (this.#leftOut === 0) return
    const line = this.#tellLeftOut(this.#leftOut, this.#leftOutReason)
    this.#enqueue({ bytes: Buffer.from(line), lines: this.#leftOut })
    this.#leftOut = 0
  }

  /** Writes what the descriptor takes, and looks again later when that was not all. */
  readonly #drain = (): void => {
    this.#timer = undefined
    const before = this.#queuedBytes
    while (this.#queuedBytes > 0 && this.#writeSome()) {
      if (this.#queuedBytes === 0) this.#enqueueLeftOut()
    }
    if (this.#queuedBytes === 0) return
    this.#retryMs = this.#queuedBytes < before ? shortestRetryMs : Math.min(this.#retryMs * 2, longestRetryMs)
    // It keeps no process alive that has nothing else to do: its end writes what is left.
    this.#timer = setTimeout(this.#drain, this.#retryMs).unref()
  }

  #writeAside(): void {
    if (this.#isBusy) return
    this.#isBusy = true
    setImmediate(() => this.#writeInThread())
  }

  #writeInThread(): void {
    if (this.#queuedBytes === 0) {
      this.#isBusy = false
      return
    }
    const chunk = this.#nextChunk()
    this.#isInThread = true
    // A loop that was held up itself hears of the end before it looks.
    const limit = setTimeout(() => setImmediate(() => (this.#hangs = this.#isInThread)), exitLimitMs).unref()
    write(this.#fd, chunk.bytes, (error, count) => {
      clearTimeout(limit)
      this.#isInThread = false
      this.#hangs = false
      if (error === null) {
        this.#written(chunk, count)
        if (this.#queuedBytes === 0) this.#enqueueLeftOut()
        this.#writeInThread()
      } else {
        this.#failed(errorCode(error), error)
        setTimeout(() => this.#writeInThread(), shortestRetryMs).unref()
      }
    })
  }

  #written(chunk: Entry, count: number): void {
    this.#queuedBytes -= count
    if (count < chunk.bytes.length) this.#queue[0] = { ...chunk, bytes: chunk.bytes.subarray(count) }
    else this.#queue.shift()
  }

  /** Whether another try may have more luck at once. */
  #writeSome(): boolean {
    const chunk = this.#nextChunk()
    try {
      this.#written(chunk, writeSync(this.#fd, chunk.bytes))
      return true
    } catch (error) {
      return this.#failed(errorCode(error), error)
    }
  }

  /** The first lines of the queue, joined to one entry of it. */
  #nextChunk(): Entry {
    let count = 1
    let length = this.#queue[0]!.bytes.length
    for (; count < this.#queue.length; count++) {
      length += this.#queue[count]!.bytes.length
      if (length > chunkLimit) break
    }
    if (count === 1) return this.#queue[0]!
    const entries = this.#queue.slice(0, count)
    const joined = {
      bytes: Buffer.concat(entries.map(({ bytes }) => bytes)),
      lines: entries.reduce((sum, { lines }) => sum + lines, 0),
    }
    this.#queue.splice(0, count, joined)
    return joined
  }

  #failed(code: string | undefined, error: unknown): boolean {
    if (code === 'EAGAIN') return false
    if (code === 'EINTR') return true
    if (goneCodes.has(code)) {
      this.#isGone = true
      this.#queue.length = 0
      this.#queuedBytes = 0
      return false
    }
    // A full disk: what it did not take is lost, and what comes later may fit.
    const lost = this.#queue.shift()!
    this.#queuedBytes -= lost.bytes.length
    this.#leaveOut(lost.lines, describeError(error))
    return false
  }

  /** The last words of a process wait for their reader, and not for long. */
  flush(): void {
    const endMs = performance.now() + exitLimitMs
    if (this.#hangs) return
    if (this.#isInThread) {
      // Node waits for its threads at its end, and hears nothing of them any more.
      Atomics.wait(pauseCell, 0, 0, threadMs)
      this.#queuedBytes -= this.#queue.shift()!.bytes.length
    }
    this.#enqueueLeftOut()
    for (;;) {
      while (this.#queuedBytes > 0 && this.#writeSome());
      if (this.#queuedBytes === 0 || performance.now() >= endMs) return
      Atomics.wait(pauseCell, 0, 0, shortestRetryMs)
    }
  }
}

/** lines: how many are lost with it. */
interface Entry {
  readonly bytes: Buffer
  readonly lines: number
}

/** Nobody reads any more, nor will anybody. */
const goneCodes: ReadonlySet<string | undefined> = new Set(['EPIPE', 'ECONNRESET', 'ENOTCONN', 'EBADF'])

const pauseCell = new Int32Array(new SharedArrayBuffer(4))

function isRegularFile(fd: number): boolean {
  try {
    return fstatSync(fd).isFile()
  } catch {
    return false
  }
}

/** A descriptor of the same file that does not block, where it can be had. */
function withoutBlocking(fd: number): number {
  try {
    const stats = fstatSync(fd)
    if (stats.isFIFO() || stats.isCharacterDevice()) return reopen(fd)
    if (stats.isSocket()) keepSocket(fd)
  } catch {
    // It is closed, or what is open cannot be told: written as it is.
  }
  return fd
}

function reopen(fd: number): number {
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY)
  } catch {
    // Somebody else's, and we are not root: better that it does not block for him either.
    keepSocket(fd)
    return fd
  }
}

/** Never closed: that would close the descriptor, which is not ours. */
const sockets: Socket[] = []

/** node:net makes a pipe or socket that it takes not block; nothing else of it is used. */
function keepSocket(fd: number): void {
  const socket = new Socket({ fd, readable: false, writable: true })
  socket.on('error', () => {})
  socket.unref()
  sockets.push(socket)
}
