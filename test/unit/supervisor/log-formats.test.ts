import { describe, expect, test } from 'vitest'
import { type LineFormat, type LogFields, readHeader } from '../../../src/supervisor/log-formats.ts'

function parse(format: LineFormat, text: string) {
  const { level, headed, parse } = readHeader(format, text.split('\n')[0]!)
  return { level, headed, ...parse(text) }
}

const head = 'I1121 10:00:00.123456    4711 server.go:42] '
const source = 'server.go:42'

describe('klog levels', () => {
  test.each([
    ['I', 'info'],
    ['W', 'warn'],
    ['E', 'error'],
    ['F', 'fatal'],
  ])('%s is %s', (letter, level) => {
    const line = `${letter}1121 10:00:00.123456       1 flags.go:64] FLAG: --v="0"`
    expect(parse('klog', line)).toEqual({
      level,
      headed: true,
      message: 'FLAG: --v="0"',
      fields: { source: 'flags.go:64' },
    })
  })
})

describe("zap's JSON among klog's lines", () => {
  test('is what the etcd client of kube-apiserver writes', () => {
    const line =
      '{"level":"warn","ts":"2026-11-21T10:00:00.1Z","logger":"etcd-client","caller":"v3@v3.7.0/retry.go:68","msg":"retrying","attempt":0}'
    expect(parse('klog', line)).toEqual({
      level: 'warn',
      headed: true,
      message: 'retrying',
      fields: { source: 'v3@v3.7.0/retry.go:68', logger: 'etcd-client', attempt: 0 },
    })
  })

  test('neither drives a terminal nor takes the names of our fields', () => {
    const line = '{"level":"info","msg":"a\\u001b[2J","time":1,"source":"\\u009b","__proto__":1}'
    const { message, fields } = parse('klog', line)
    expect(message).toBe('a\\x1b[2J')
    expect(fields).toEqual({ time_: 1, source_: '\\x9b' })
  })

  test('stays as it is when it is cut', () => {
    expect(parse('klog', '{"level":"error","msg":"a').message).toBe('{"level":"error","msg":"a')
  })
})

describe('klog messages', () => {
  const table: readonly (readonly [text: string, message: string, fields: LogFields])[] = [
    ['Serving securely on [::]:6443', 'Serving securely on [::]:6443', {}],
    ['"Starting"', 'Starting', {}],
    ['"Started" port=6443 secure=true', 'Started', { port: '6443', secure: 'true' }],
    [
      '"Pod \\"a\\" failed" pod="kube-system/coredns-1" err="open \\"/x\\": EIO\\tnow"',
      'Pod "a" failed',
      { pod: 'kube-system/coredns-1', err: 'open "/x": EIO\tnow' },
    ],
    [
      '"List" pods=["a/b","c d/e"] node={"name":"n } 1"} n=1',
      'List',
      { pods: '["a/b","c d/e"]', node: '{"name":"n } 1"}', n: '1' },
    ],
    ['"Empty" a="" b= c={}', 'Empty', { a: '', b: '', c: '{}' }],
    ['"Config" text=<\n\tline 1\n\t >\n > next="a"', 'Config', { text: 'line 1\n >', next: 'a' }],
    ['"Escapes" a="\\u00e9 \\U0001f600 \\x1b[2J \\u009b \\r"', 'Escapes', { a: 'é 😀 \\x1b[2J \\u009b \\r' }],
    [
      '"Clash" msg="m" time="t" level=1 component="c" source="s"',
      'Clash',
      { msg_: 'm', time_: 't', level_: '1', component_: 'c', source_: 's' },
    ],
    ['"Fatal" err="x"\ngoroutine 1 [running]:', 'Fatal\ngoroutine 1 [running]:', { err: 'x' }],
    ['"etcd" is not "ready"', '"etcd" is not "ready"', {}],
    ['"not closed', '"not closed', {}],
    ['"Broken" a="1" b="not closed', 'Broken b="not closed', { a: '1' }],
    ['"Broken" a={"b":', '"Broken" a={"b":', {}],
    ['"Odd key" a="1" two words="2"', 'Odd key two words="2"', { a: '1' }],
    ['"Hostile" __proto__="x" constructor="y"', 'Hostile', { constructor: 'y' }],
  ]
  test.each(table)('%s', (text, message, fields) => {
    const { source: actualSource, ...rest } = parse('klog', head + text).fields
    expect(actualSource).toBe(source)
    expect({ message: parse('klog', head + text).message, fields: rest }).toEqual({ message, fields })
  })

  test('fields beyond the limit stay in the message', () => {
    const pairs = Array.from({ length: 100 }, (_, index) => `k${index}=${index}`)
    const { message, fields } = parse('klog', `${head}"Many" ${pairs.join(' ')}`)
    expect(Object.keys(fields)).toHaveLength(64 + 1)
    expect(message).toMatch(/^Many k64=64 .* k99=99$/)
  })
})

describe('logfmt of containerd', () => {
  const table: readonly (readonly [line: string, level: string, message: string, fields: LogFields])[] = [
    [
      'time="2026-11-21T10:00:00.000000000Z" level=info msg="starting containerd" revision=abc version=v2.4.2',
      'info',
      'starting containerd',
      { revision: 'abc', version: 'v2.4.2' },
    ],
    ['time="2026-11-21T10:00:00Z" level=warning msg=short', 'warn', 'short', {}],
    ['time="2026-11-21T10:00:00Z" level=debug msg="a=\\"b\\""', 'debug', 'a="b"', {}],
    ['time="2026-11-21T10:00:00Z" level=trace msg=x', 'trace', 'x', {}],
    [
      'time="2026-11-21T10:00:00Z" level=error msg="cannot load" error="line 1\\nline 2" id=1',
      'error',
      'cannot load',
      { error: 'line 1\nline 2', id: '1' },
    ],
    ['time="2026-11-21T10:00:00Z" level=fatal msg=f', 'fatal', 'f', {}],
    ['time="2026-11-21T10:00:00Z" level=panic msg=p', 'fatal', 'p', {}],
    ['time="2026-11-21T10:00:00Z" level=odd msg=p', 'info', 'p', {}],
    [
      'time="2026-11-21T10:00:00Z" level=info error=no-message',
      'info',
      'time="2026-11-21T10:00:00Z" level=info error=no-message',
      {},
    ],
  ]
  test.each(table)('%s', (line, level, message, fields) => {
    expect(parse('logfmt', line)).toEqual({ level, headed: true, message, fields })
  })
})

describe('lines without a header keep their text', () => {
  test.each([
    ['klog', 'Error: unknown flag: --x', 'error'],
    ['klog', 'panic: runtime error: index out of range', 'fatal'],
    ['klog', 'goroutine 1 [running]:', 'error'],
    ['klog', 'I1121 without the rest', 'info'],
    ['logfmt', 'containerd: invalid configuration', 'info'],
    ['logfmt', 'fatal error: all goroutines are asleep - deadlock!', 'fatal'],
    ['plain', 'Warning: deprecated', 'warn'],
    ['plain', 'I1121 10:00:00.123456    4711 server.go:42] "x"', 'info'],
  ] as const)('%s: %s', (format, line, level) => {
    expect(parse(format, line)).toEqual({ level, headed: false, message: line, fields: {} })
  })
})

test.each([
  ['klog', '{"level":"constructor","msg":"m"}', 'fatal'],
  ['logfmt', 'time="t" level=constructor msg=m', 'info'],
  ['logfmt', 'time="t" level=__proto__ msg=m', 'info'],
] as const)('a level that is none: %s %s', (format, line, level) => {
  expect(parse(format, line)).toEqual({ level, headed: true, message: 'm', fields: {} })
})

test('a long hostile line is read in time that grows with its length only', () => {
  const line = `${head}"${'\\"'.repeat(8_000)} a={${'["'.repeat(4_000)}`
  expect(parse('klog', line).message).toBe(line.slice(head.length))
})
