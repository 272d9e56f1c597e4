import type { History } from './history.ts'
import { relistsOf } from './check.ts'

/** A fault, or the time without one: from its beginning to that of the next. */
export interface Period {
  readonly title: string
  readonly startMs: number
  readonly endMs: number
  /** From the end of the fault until all servers were ready again. */
  readonly recoveryMs?: number
}

interface Pauses {
  /** The longest time without an acknowledged write. */
  readonly writeMs: number
  /** The longest time without an answered read. */
  readonly readMs: number
  /** How many writes got no answer. */
  readonly unknown: number
}

/** What clients felt of a period. */
export function pausesOf(history: History, { startMs, endMs }: Period): Pauses {
  const isIn = (ms: number) => ms >= startMs && ms <= endMs
  const longest = (ends: readonly number[]): number => {
    const points = [startMs, ...ends.filter(isIn).toSorted((a, b) => a - b), endMs]
    return Math.max(...points.slice(1).map((point, index) => point - (points[index] ?? point)))
  }
  const done = history.writes.filter(({ outcome }) => outcome === 'done')
  return {
    writeMs: longest(done.map((write) => write.endMs)),
    readMs: longest(history.reads.map((read) => read.endMs)),
    unknown: history.writes.filter(({ outcome, endMs: at }) => outcome === 'unknown' && isIn(at)).length,
  }
}

/** One line of counts, and a table of the periods. */
export function formatReport(history: History, periods: readonly Period[]): string {
  const count = (outcome: string) => history.writes.filter((write) => write.outcome === outcome).length
  const events = history.watches.flat().filter(({ type }) => type !== 'LISTED').length
  const rows = periods.map((period) => {
    const { writeMs, readMs, unknown } = pausesOf(history, period)
    const { recoveryMs } = period
    return [
      seconds(writeMs),
      seconds(readMs),
      recoveryMs === undefined ? '-' : seconds(recoveryMs),
      String(unknown),
      period.title,
    ]
  })
  const table = [['no write', 'no read', 'ready', 'unknown', 'while'], ...rows].map(
    ([write = '', read = '', ready = '', unknown = '', title = '']) =>
      `${write.padStart(9)}${read.padStart(9)}${ready.padStart(9)}${unknown.padStart(9)}  ${title}`,
  )
  return [
    `${count('done')} writes were acknowledged, ${count('refused')} refused, and ${count('unknown')} got no answer; ` +
      `${history.reads.length} reads were answered, and ${history.unansweredReads.length} were not; ` +
      `${history.watches.length} watches told of ${events} events, went on ${history.resumed} times and began anew ${relistsOf(history)} times`,
    ...table,
  ].join('\n')
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}
