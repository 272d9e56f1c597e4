import type { LogLevel } from '../base/logger.ts'
import { printable } from './log-lines.ts'

/** How a component writes: klog's text (Kubernetes), logrus' key=value text (containerd), or anything. */
export type LineFormat = 'klog' | 'logfmt' | 'plain'

export type LogFields = Record<string, unknown>

export interface ParsedRecord {
  readonly message: string
  readonly fields: LogFields
}

/** What the first line of a record tells before it is parsed: a record that is left out is never parsed. */
export interface LineHeader {
  readonly level: LogLevel
  /** Whether the line has the header of its format. Lines without one may belong to the record before. */
  readonly headed: boolean
  readonly parse: (text: string) => ParsedRecord
}

/** Fields beyond these are left in the message. */
const fieldsLimit = 64

/** Names that the daemon's own records use; a child's field of that name gets an underscore. */
const reservedNames = new Set(['time', 'level', 'msg', 'component', 'source'])

function fieldName(key: string): string {
  return reservedNames.has(key) ? `${key}_` : key
}

/** Reads the first line of a record. */
export function readHeader(format: LineFormat, line: string): LineHeader {
  if (format === 'klog') return readKlog(line) ?? readZap(line) ?? readPlain(line)
  if (format === 'logfmt') return readLogfmt(line) ?? readPlain(line)
  return readPlain(line)
}

// k8s.io/klog/v2 internal/buffer/buffer.go, FormatHeader: Lmmdd hh:mm:ss.uuuuuu threadid file:line] msg
const klogHeader = /^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ ([^\]]+:\d+)\] /
const klogLevels: Readonly<Record<string, LogLevel>> = { I: 'info', W: 'warn', E: 'error', F: 'fatal' }

function readKlog(line: string): LineHeader | undefined {
  const header = klogHeader.exec(line)
  if (header === null) return undefined
  const [start, letter, source] = header as unknown as [string, string, string]
  return {
    level: klogLevels[letter] ?? 'info',
    headed: true,
    parse: (text) => {
      const { message, fields } = parseKlogMessage(text.slice(start.length))
      return { message, fields: { source, ...fields } }
    },
  }
}

/** `"Starting" port=1 err="..."` of the structured calls; any other text is the message as it stands. */
function parseKlogMessage(text: string): ParsedRecord {
  const message = readQuoted(text, 0)
  if (message === undefined) return { message: text, fields: {} }
  const { fields, end } = readPairs(text, message.end)
  // "etcd" is down: the format string of klog.Infof may begin with a quote too.
  if (end === message.end && /^[^\n]/.test(text.slice(end))) return { message: text, fields: {} }
  return { message: message.value + text.slice(end), fields }
}

const zapLevels: ReadonlyMap<string, LogLevel> = new Map([
  ['debug', 'debug'],
  ['info', 'info'],
  ['warn', 'warn'],
  ['error', 'error'],
])

/** go.uber.org/zap's JSON, in which etcd writes, and its client inside kube-apiserver. */
function readZap(line: string): LineHeader | undefined {
  const level = /^\{"level":"(\w+)",/.exec(line)?.[1]
  if (level === undefined) return undefined
  return {
    level: zapLevels.get(level) ?? 'fatal',
    headed: true,
    parse(text) {
      const record = parseObject(text)
      if (record === undefined) return { message: text, fields: {} }
      // etcd adds one to every error, also to those that say all by themselves.
      const { level: _level, ts: _ts, stacktrace: _stack, msg, caller, ...others } = record
      const fields: LogFields = caller === undefined ? {} : { source: caller }
      for (const [key, value] of Object.entries(others)) {
        fields[fieldName(key)] = typeof value === 'string' ? printable(value) : value
      }
      return { message: printable(String(msg)), fields }
    },
  }
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    return undefined
  }
}

// github.com/sirupsen/logrus text_formatter.go without colours: time, level and msg come first.
const logfmtHeader = /^time=(?:"[^"]*"|\S+) level=(\w+)(?= |$)/
const logfmtLevels: ReadonlyMap<string, LogLevel> = new Map([
  ['trace', 'trace'],
  ['debug', 'debug'],
  ['info', 'info'],
  ['warning', 'warn'],
  ['warn', 'warn'],
  ['error', 'error'],
  ['fatal', 'fatal'],
  ['panic', 'fatal'],
])

function readLogfmt(line: string): LineHeader | undefined {
  const header = logfmtHeader.exec(line)
  if (header === null) return undefined
  return {
    level: logfmtLevels.get(header[1]!) ?? 'info',
    headed: true,
    parse: (text) => {
      const { fields, message, end } = readPairs(text, header[0].length, 'msg')
      if (message === undefined) return { message: text, fields: {} }
      return { message: message + text.slice(end), fields }
    },
  }
}

const plainLevels: readonly (readonly [RegExp, LogLevel])[] = [
  [/^(panic|fatal error|runtime|SIG[A-Z]+): /, 'fatal'],
  [/^goroutine \d+ /, 'error'],
  [/^(error|fatal)\b/i, 'error'],
  [/^warning\b/i, 'warn'],
]

function readPlain(line: string): LineHeader {
  const level = plainLevels.find(([pattern]) => pattern.test(line))?.[1] ?? 'info'
  return { level, headed: false, parse: (text) => ({ message: text, fields: {} }) }
}

interface Pairs {
  readonly fields: LogFields
  /** The value of the pair that holds the message, where the format has one. */
  readonly message: string | undefined
  /** Where the text that is not pairs begins. */
  readonly end: number
}

/** Reads ` key=value key="quoted" key={"json":1} key=<lines>` from `start` on, as far as it is well-formed. */
function readPairs(text: string, start: number, messageKey?: string): Pairs {
  const fields: LogFields = {}
  let message: string | undefined
  let end = start
  for (let count = 0; count < fieldsLimit; count++) {
    const key = matchAt(/ +([A-Za-z_][\w.\-/]*)=/y, text, end)
    if (key === undefined) break
    const value = readValue(text, end + key[0].length)
    if (value === undefined) break
    end = value.end
    const name = key[1]!
    if (name === messageKey && message === undefined) message = value.value
    else fields[fieldName(name)] = value.value
  }
  return { fields, message, end }
}

interface ReadText {
  readonly value: string
  readonly end: number
}

function readValue(text: string, start: number): ReadText | undefined {
  switch (text[start]) {
    case '"':
      return readQuoted(text, start)
    case '{':
    case '[':
      return readJson(text, start)
    case '<':
      return readLines(text, start) ?? readWord(text, start)
    default:
      return readWord(text, start)
  }
}

function readWord(text: string, start: number): ReadText {
  const value = matchAt(/[^\s]*/y, text, start)?.[0] ?? ''
  return { value, end: start + value.length }
}

/** A string as Go's strconv.Quote writes it. */
function readQuoted(text: string, start: number): ReadText | undefined {
  const quoted = matchAt(/"(?:[^"\\\n]|\\[^\n])*"/y, text, start)?.[0]
  if (quoted === undefined) return undefined
  const inner = quoted.slice(1, -1)
  return { value: inner.includes('\\') ? unescape(inner) : inner, end: start + quoted.length }
}

const escapes: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\\r',
  '"': '"',
  "'": "'",
  '\\': '\\',
}

/** Escapes of characters that a terminal would obey stay as they are. */
function unescape(inner: string): string {
  return inner.replace(/\\(u[0-9a-f]{4}|U[0-9a-f]{8}|x[0-9a-f]{2}|[0-7]{3}|.)/g, (whole, code: string) => {
    if (code.length === 1) return escapes[code] ?? whole
    if (code[0] !== 'u' && code[0] !== 'U') return whole
    const point = Number.parseInt(code.slice(1), 16)
    return point >= 0xa0 && point <= 0x10ffff ? String.fromCodePoint(point) : whole
  })
}

/** A JSON object or array, which klog prints for values that are neither strings nor numbers. */
function readJson(text: string, start: number): ReadText | undefined {
  let depth = 0
  for (let end = start; end < text.length; end++) {
    const character = text[end]
    if (character === '"') {
      const quoted = readQuoted(text, end)
      if (quoted === undefined) return undefined
      end = quoted.end - 1
    } else if (character === '{' || character === '[') depth += 1
    else if (character === '}' || character === ']') depth -= 1
    if (depth === 0) return { value: text.slice(start, end + 1), end: end + 1 }
  }
  return undefined
}

/** klog's form of a string of several lines: each is indented by a tab between `<` and ` >`. */
function readLines(text: string, start: number): ReadText | undefined {
  const lines = matchAt(/<\n((?:\t[^\n]*\n)*) >/y, text, start)
  if (lines === undefined) return undefined
  const value = lines[1]!.replace(/^\t/gm, '').replace(/\n$/, '')
  return { value, end: start + lines[0].length }
}

/**
 * Whether a line that has no header goes on with the record before it: indented lines (the values of
 * klog that have several lines, the frames of a stack) and the stacks that klog.Fatal appends.
 */
export function continuesRecord(line: string): boolean {
  return /^(\s|$|goroutine \d+ )/.test(line)
}

/** Whether the line begins a stack trace, of which all lines are a part until one has a header. */
export function beginsTrace(line: string): boolean {
  return /^(panic: |fatal error: |unexpected fault |SIG[A-Z]+: |goroutine \d+ )/.test(line)
}

function matchAt(pattern: RegExp, text: string, at: number): RegExpExecArray | undefined {
  pattern.lastIndex = at
  return pattern.exec(text) ?? undefined
}
