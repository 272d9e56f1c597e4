import type { Logger, LogLevel } from '../base/logger.ts'
import {
  beginsTrace,
  continuesRecord,
  type LineFormat,
  type LineHeader,
  type ParsedRecord,
  readHeader,
} from './log-formats.ts'
import { LastLines, LineSplitter, RateLimit } from './log-lines.ts'

/** The lines of one record: a stack trace is longer than a screen, a dump of all goroutines is left out. */
const linesPerRecordLimit = 200

/** The characters of one record. */
const recordLengthLimit = 64 * 1024

/** A record is complete when its child has been silent for so long: a stack trace comes in many small writes. */
const settleMs = 50

/** Records of one process. Warnings and errors have a limit of their own, so that none drowns in --v=10. */
const recordsPerSecondLimit = 2_000
const recordsBurstLimit = 10_000

const severeLevels: ReadonlySet<LogLevel> = new Set(['warn', 'error', 'fatal'])

/** Sees what a process says before it is logged; true: it is told in another way, and not logged. */
export type RecordListener = (record: ParsedRecord) => boolean

type StreamName = 'stdout' | 'stderr'

/**
 * Makes records of what a process prints: each line becomes one, the lines of a stack trace one
 * together. Takes everything at once, so that the process never waits for its reader; what is beyond
 * the rate above is counted and left out of the log, never of `lastLines`.
 */
export class ProcessLog {
  readonly lastLines = new LastLines()
  readonly #log: Logger
  readonly #onRecord: RecordListener
  readonly #limits: Readonly<Record<'severe' | 'other', RateLimit>>
  readonly #streams: Readonly<Record<StreamName, { lines: LineSplitter; records: RecordGrouper }>>
  #leftOut = 0

  /** log: has the component's name already; nowMs: a steady clock. */
  constructor({
    log,
    format,
    onRecord = () => false,
    nowMs = () => performance.now(),
  }: {
    log: Logger
    format: LineFormat
    onRecord?: RecordListener | undefined
    nowMs?: () => number
  }) {
    this.#log = log
    this.#onRecord = onRecord
    const rate = { perSecond: recordsPerSecondLimit, burst: recordsBurstLimit, nowMs }
    this.#limits = { severe: new RateLimit(rate), other: new RateLimit(rate) }
    this.#streams = { stdout: this.#stream(format), stderr: this.#stream(format) }
  }

  write(stream: StreamName, chunk: Buffer): void {
    this.#streams[stream].lines.push(chunk)
  }

  /** Once, when nothing more comes. */
  end(): void {
    for (const { lines, records } of Object.values(this.#streams)) {
      lines.end()
      records.flush()
    }
    this.#tellLeftOut()
  }

  #stream(format: LineFormat) {
    const records = new RecordGrouper(format, (record) => this.#emit(record))
    const lines = new LineSplitter((line) => {
      this.lastLines.push(line)
      records.push(line)
    })
    return { lines, records }
  }

  #emit({ header, lines, moreLines }: LineGroup): void {
    const { level } = header
    if (!this.#limits[severeLevels.has(level) ? 'severe' : 'other'].take()) {
      this.#leftOut += 1
      return
    }
    this.#tellLeftOut()
    const record = header.parse(lines.join('\n').trimEnd())
    if (this.#onRecord(record)) return
    const { message, fields } = record
    this.#log[level](fields, moreLines > 0 ? `${message}\n[${moreLines} more lines]` : message)
  }

  #tellLeftOut(): void {
    if (this.#leftOut === 0) return
    this.#log.warn({ records: this.#leftOut }, `left out records beyond ${recordsPerSecondLimit} a second`)
    this.#leftOut = 0
  }
}

interface LineGroup {
  readonly header: LineHeader
  readonly lines: string[]
  length: number
  moreLines: number
  trace: boolean
}

/** Puts the lines of a record together. */
class RecordGrouper {
  readonly #format: LineFormat
  readonly #onGroup: (group: LineGroup) => void
  readonly #settled: NodeJS.Timeout
  #group: LineGroup | undefined

  constructor(format: LineFormat, onGroup: (group: LineGroup) => void) {
    this.#format = format
    this.#onGroup = onGroup
    this.#settled = setTimeout(() => this.flush(), settleMs).unref()
  }

  push(line: string): void {
    const header = readHeader(this.#format, line)
    const group = this.#group
    if (group !== undefined && !header.headed && (group.trace || continuesRecord(line))) {
      this.#extend(group, line)
    } else {
      this.flush()
      // Empty lines before and between records say nothing.
      if (line === '') return
      this.#group = { header, lines: [line], length: line.length, moreLines: 0, trace: beginsTrace(line) }
    }
    this.#settled.refresh()
  }

  flush(): void {
    const group = this.#group
    this.#group = undefined
    if (group !== undefined) this.#onGroup(group)
  }

  #extend(group: LineGroup, line: string): void {
    group.trace ||= beginsTrace(line)
    if (group.lines.length >= linesPerRecordLimit || group.length + line.length > recordLengthLimit) {
      group.moreLines += 1
      return
    }
    group.lines.push(line)
    group.length += line.length
  }
}
