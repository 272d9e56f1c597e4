import pino from 'pino'
import { BoundedWriter } from './bounded-writer.ts'

/** The part of pino that the rooms use: `log.info({ component, pid }, 'restarted')`. */
export type Logger = Pick<pino.Logger, 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'child'>

/** json: one record a line, for machines; text: one readable line each, for a terminal. */
type LogFormat = 'json' | 'text'

/** pino's levels in the order of their weight. */
const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const
export type LogLevel = (typeof logLevels)[number]

/**
 * The daemon's logger. What it has logged is in `fd` before its process ends, also by a crash, and it does not wait for
 * whoever reads there: see BoundedWriter.
 */
export function createLogger({ fd = 2, ...options }: LoggerOptions & { fd?: number }): Logger {
  const render = renderOf(options)
  const { write } = new BoundedWriter({
    fd,
    tellLeftOut: (lines, reason) =>
      render(
        `${JSON.stringify({ level: 'warn', time: new Date(), lines, msg: `left out ${lines} log lines: ${reason}` })}\n`,
      ),
  })
  return createLoggerTo(write, options)
}

interface LoggerOptions {
  readonly format: LogFormat
  readonly level?: LogLevel
}

function renderOf({ format }: LoggerOptions): (line: string) => string {
  return format === 'json' ? (line) => line : renderText
}

/** A logger whose lines go to a function. */
export function createLoggerTo(write: (line: string) => void, options: LoggerOptions): Logger {
  const render = renderOf(options)
  const { level = 'info' } = options
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: ['token', '*.token', 'password', '*.password'], censor: '[redacted]' },
    },
    { write: (line: string) => write(render(line)) },
  )
}

/** A logger that says nothing, for tests and commands that print their own words. */
export const silentLogger: Logger = pino({ level: 'silent' })

/** 2026-11-21T10:00:00.000Z INFO  kube-apiserver message key=value */
function renderText(line: string): string {
  const { time, level, component, msg, err, ...fields } = JSON.parse(line) as Record<string, unknown>
  const words = [String(time), String(level).toUpperCase().padEnd(5), component ?? 'k8s', msg ?? '']
  for (const [name, value] of Object.entries(fields)) words.push(`${name}=${renderValue(value)}`)
  if (err) words.push(`error=${renderValue((err as { message?: unknown }).message ?? err)}`)
  return `${words.join(' ')}\n`
}

function renderValue(value: unknown): string {
  return typeof value === 'string' && /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value)
}
