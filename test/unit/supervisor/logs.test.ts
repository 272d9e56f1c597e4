import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ProcessLog } from '../../../src/supervisor/logs.ts'
import { recordingLogger, temporaryDirectory, until } from './support.ts'

let directory: ReturnType<typeof temporaryDirectory>
let logger: ReturnType<typeof recordingLogger>

beforeEach(() => {
  directory = temporaryDirectory()
  logger = recordingLogger()
})

afterEach(() => {
  directory[Symbol.dispose]()
})

const head = 'I1121 10:00:00.123456    4711 server.go:42] '

function record(text: string, format: 'klog' | 'plain' = 'klog') {
  const output = new ProcessLog({ log: logger.log.child({ component: 'kube-apiserver' }), format })
  output.write('stderr', Buffer.from(text))
  output.end()
  return logger.records()
}

test('a line becomes a record with its component, level, message and fields', () => {
  expect(record('W1121 10:00:00.123456    4711 server.go:42] "Slow" tookMs=7\n')).toEqual([
    {
      time: expect.any(String),
      level: 'warn',
      component: 'kube-apiserver',
      source: 'server.go:42',
      tookMs: '7',
      msg: 'Slow',
    },
  ])
})

describe('lines that belong together make one record', () => {
  const trace = 'panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/src/main.go:3 +0x1\nexit status 2'

  test('a panic', () => {
    expect(record(`${head}before\n${trace}\n${head}after\n`)).toMatchObject([
      { level: 'info', msg: 'before' },
      { level: 'fatal', msg: trace },
      { level: 'info', msg: 'after' },
    ])
  })

  test('a fatal message with the stacks that klog appends', () => {
    const stacks = 'goroutine 1 [running]:\nk8s.io/klog/v2.Fatal()\n\t/src/klog.go:1'
    expect(record(`F1121 10:00:00.123456 4711 server.go:42] cannot listen\n${stacks}\n`)).toMatchObject([
      { level: 'fatal', msg: `cannot listen\n${stacks}` },
    ])
  })

  test('a value of several lines', () => {
    expect(record(`${head}"Unhandled" err=<\n\tone\n\ttwo\n > pod="a/b"\n${head}next\n`)).toMatchObject([
      { msg: 'Unhandled', err: 'one\ntwo', pod: 'a/b' },
      { msg: 'next' },
    ])
  })

  test('other lines without a header are records of their own', () => {
    expect(record(`${head}one\nplain\nplain too\n\n`)).toMatchObject([
      { msg: 'one' },
      { msg: 'plain' },
      { msg: 'plain too' },
    ])
  })

  test('a trace beyond the limit says how many lines are missing', () => {
    const frames = Array.from({ length: 1_000 }, (_, index) => `\tframe ${index}`).join('\n')
    const [only, ...more] = record(`panic: boom\n${frames}\n`)
    expect(more).toEqual([])
    expect(only!.msg.split('\n')).toHaveLength(201)
    expect(only!.msg).toMatch(/\n\tframe 198\n\[801 more lines\]$/)
  })
})

test('the two streams do not mix within a line', () => {
  const output = new ProcessLog({ log: logger.log, format: 'plain' })
  output.write('stdout', Buffer.from('to std'))
  output.write('stderr', Buffer.from('an error'))
  output.write('stdout', Buffer.from('out\n'))
  output.end()
  expect(
    logger
      .records()
      .map(({ msg }) => msg)
      .toSorted(),
  ).toEqual(['an error', 'to stdout'])
})

test('a record is written without waiting for the next one', async () => {
  const output = new ProcessLog({ log: logger.log, format: 'klog' })
  for (const message of ['first', 'second']) {
    output.write('stderr', Buffer.from(`${head}${message}\n`))
    const last = await until(() => logger.records().find(({ msg }) => msg === message))
    expect(last.level).toBe('info')
  }
})

describe('a flood', () => {
  const lines = Array.from({ length: 30_000 }, (_, index) => `${head}"Line" number=${index}`)

  test('is cut to its rate, counted, and whole in the last lines', () => {
    const output = new ProcessLog({ log: logger.log, format: 'klog', nowMs: () => 0 })
    output.write('stderr', Buffer.from(`${lines.join('\n')}\n`))
    output.end()
    const records = logger.records()
    expect(records).toHaveLength(10_001)
    expect(records.at(-1)).toMatchObject({ level: 'warn', records: 20_000 })
    expect(output.lastLines.list()).toEqual(lines.slice(-100))
  })

  test('does not drown an error', () => {
    const error = 'E1121 10:00:00.123456    4711 server.go:42] "Failed"'
    const output = new ProcessLog({ log: logger.log, format: 'klog', nowMs: () => 0 })
    output.write('stderr', Buffer.from(`${lines.join('\n')}\n${error}\n`))
    output.end()
    expect(logger.records().at(-1)).toMatchObject({ level: 'error', msg: 'Failed' })
  })
})
