import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  createReadStream,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { createInterface } from 'node:readline'
import { afterEach, describe, expect, test } from 'vitest'
import { BoundedWriter } from '../../../src/base/bounded-writer.ts'
import type { ProcessStatus } from '../../../src/supervisor/supervised-process.ts'
import { environment, fixture, shell, temporaryDirectory } from '../supervisor/support.ts'

/** More than a pipe and the queue hold: about 7 MB. */
const manyLines = 50_000

const children: ChildProcess[] = []

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
})

/** A reader that has a pipe open and reads nothing until it is asked to. */
function stuckPipe(directory: string) {
  const path = join(directory, 'pipe')
  execFileSync('mkfifo', [path])
  // Reading and writing: neither open waits for the other side.
  const fd = openSync(path, constants.O_RDWR)
  return {
    fd,
    /** The reader begins; `fd` is closed, so that the end of the last writer is its end, too. */
    read: async (): Promise<Readable> => {
      const stream = createReadStream(path)
      await once(stream, 'open')
      closeSync(fd)
      return stream
    },
  }
}

interface Writer {
  readonly child: ChildProcess
  readonly said: (word: string) => Promise<unknown>
  readonly exited: Promise<unknown>
  readonly read: () => Promise<Readable>
}

/** A process whose standard error is a pipe (of a shell) or a socket (of a journal) that nobody reads. */
function startWriter(kind: 'pipe' | 'socket', directory: string, ...args: string[]): Writer {
  const pipe = kind === 'pipe' ? stuckPipe(directory) : undefined
  const stderr = pipe === undefined ? 'pipe' : pipe.fd
  const child = spawn(process.execPath, [fixture('write-log.ts'), ...args], {
    stdio: ['pipe', 'pipe', stderr],
  })
  children.push(child)
  const lines = createInterface({ input: child.stdout! })
  return {
    child,
    said: async (word) => {
      for await (const line of lines) if (line === word) return
    },
    exited: once(child, 'exit'),
    read: async () => pipe?.read() ?? child.stderr!,
  }
}

const messages = (log: string) =>
  log
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as { line?: number; lines?: number; msg: string; level: string })

describe.each(['pipe', 'socket'] as const)('a reader of a %s that is stuck', (kind) => {
  test('stops nothing; what did not fit is counted', async () => {
    using directory = temporaryDirectory()
    const writer = startWriter(kind, directory.path, String(manyLines))
    await writer.said('alive')
    const log = text(await writer.read())
    writer.child.stdin!.end('exit')
    await writer.exited
    const records = messages(await log)
    const leftOut = records.flatMap(({ lines }) => lines ?? [])
    const told = records.filter(({ msg }) =>
      /^left out \d+ log lines: the reader .* did not keep up$/.test(msg),
    )
    expect(told).toHaveLength(leftOut.length)
    expect(leftOut.length).toBeGreaterThan(0)
    const written = records.filter(({ line }) => line !== undefined).map(({ line }) => line!)
    expect(written).toEqual(written.toSorted((a, b) => a - b))
    expect(written.length + leftOut.reduce((sum, count) => sum + count)).toBe(manyLines)
  })

  test('does not keep the process from its end', async () => {
    using directory = temporaryDirectory()
    const writer = startWriter(kind, directory.path, String(manyLines), 'crash')
    await writer.said('alive')
    writer.child.stdin!.end('exit')
    expect(await writer.exited).toEqual([1, null])
    const unread = await writer.read()
    unread.destroy()
  })

  test('gets the last words when it reads again', async () => {
    using directory = temporaryDirectory()
    const writer = startWriter(kind, directory.path, '5000', 'crash')
    await writer.said('alive')
    const log = text(await writer.read())
    writer.child.stdin!.end('exit')
    const records = messages(await log)
    expect(records).toHaveLength(5001)
    expect(records.at(-1)).toMatchObject({ level: 'fatal', msg: 'bug in the daemon' })
  })
})

test('a supervisor whose log nobody reads starts again what ends', async () => {
  using directory = temporaryDirectory()
  const { fd } = stuckPipe(directory.path)
  const spec = {
    ...shell('head -c 8000000 /dev/zero | tr "\\0" "\\n" | sed s/^/line/; exec sleep 1000'),
    name: 'child',
    env: environment,
    logFormat: 'plain',
    stopTimeoutMs: 60_000,
    recordDir: join(directory.path, 'processes'),
  }
  const daemon = spawn(process.execPath, [fixture('supervise.ts'), JSON.stringify([spec])], {
    stdio: ['ignore', 'pipe', fd],
  })
  children.push(daemon)
  let last: ProcessStatus | undefined
  for await (const line of createInterface({ input: daemon.stdout! })) {
    last = JSON.parse(line) as ProcessStatus
    if (last.state !== 'running') continue
    if (last.restarts === 3) break
    process.kill(last.pid!, 'SIGKILL')
  }
  expect(last).toMatchObject({ state: 'running', restarts: 3 })
  process.kill(last!.pid!, 'SIGKILL')
  closeSync(fd)
})

test.each([
  ['a full disk', () => openSync('/dev/full', 'w')],
  ['a descriptor that is closed', () => 999_999],
])('%s is no failure', (_, open) => {
  const writer = new BoundedWriter({ fd: open(), tellLeftOut: (count) => `${count}\n` })
  for (let line = 0; line < 100; line++) expect(() => writer.write('line\n')).not.toThrow()
})

test('a reader that went away is no failure', async () => {
  using directory = temporaryDirectory()
  const { fd, read } = stuckPipe(directory.path)
  const writer = new BoundedWriter({ fd, tellLeftOut: () => '' })
  const reader = await read()
  reader.destroy()
  await once(reader, 'close')
  expect(() => writer.write('line\n')).not.toThrow()
})

test('lines that a full disk did not take are told when there is room again', async () => {
  using directory = temporaryDirectory()
  const path = join(directory.path, 'log')
  const fd = openSync(path, 'w')
  // The limit of a file's size stands for the disk's.
  const script = `ulimit -S -f 0; trap '' XFSZ; exec "$0" -e "$1"`
  const code = `
    import { stat } from 'node:fs'
    import { BoundedWriter } from ${JSON.stringify(fixture('../../src/base/bounded-writer.ts'))}
    const writer = new BoundedWriter({ fd: 3, tellLeftOut: (count, reason) => count + ' lost: ' + reason + '\\n' })
    writer.write('one\\n')
    writer.write('two\\n')
    // The only thread does one thing after the other.
    setImmediate(() => stat('.', () => console.log('full')))
    process.stdin.once('data', () => {
      writer.write('three\\n')
      process.exit(0)
    })
  `
  const child = spawn('sh', ['-c', script, process.execPath, code], {
    env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
    stdio: ['pipe', 'pipe', 'inherit', fd],
  })
  children.push(child)
  closeSync(fd)
  await once(child.stdout!, 'data')
  execFileSync('prlimit', [`--pid=${child.pid}`, '--fsize=unlimited'])
  child.stdin!.end('go on')
  await once(child, 'exit')
  expect(readFileSync(path, 'utf8')).toBe('2 lost: EFBIG: file too large, write\nthree\n')
})

test('a file has the last words of a process, in order', async () => {
  using directory = temporaryDirectory()
  const path = join(directory.path, 'log')
  const fd = openSync(path, 'a')
  const child = spawn(process.execPath, [fixture('write-log.ts'), '5000', 'crash'], {
    stdio: ['pipe', 'ignore', fd],
  })
  children.push(child)
  closeSync(fd)
  child.stdin!.end('exit')
  expect(await once(child, 'exit')).toEqual([1, null])
  const records = messages(readFileSync(path, 'utf8'))
  expect(records.slice(0, -1).map(({ line }) => line)).toEqual(
    Array.from({ length: 5000 }, (_, at) => at + 1),
  )
  expect(records.at(-1)).toMatchObject({ level: 'fatal', msg: 'bug in the daemon' })
})

describe('a file whose disk hangs', () => {
  /** A process with its log there, which has logged so many lines. */
  async function startOnDisk(directory: string, count: number) {
    const [library, log, flag] = ['hang.so', 'log', 'hangs'].map((name) => join(directory, name)) as [
      string,
      string,
      string,
    ]
    execFileSync('gcc', ['-O2', '-Wall', '-Werror', '-shared', '-fPIC', '-o', library, fixture('hang.c')])
    writeFileSync(flag, '')
    const fd = openSync(log, 'a')
    const child = spawn(process.execPath, [fixture('write-log.ts'), String(count)], {
      env: { ...process.env, LD_PRELOAD: library, HANG_WHEN: flag },
      stdio: ['pipe', 'pipe', fd],
    })
    children.push(child)
    closeSync(fd)
    for await (const line of createInterface({ input: child.stdout! })) if (line === 'alive') break
    return { child, log, heal: () => rmSync(flag) }
  }

  test('holds nothing up; what it has not taken is counted once it answers', async () => {
    using directory = temporaryDirectory()
    const { child, log, heal } = await startOnDisk(directory.path, manyLines)
    expect(readFileSync(log, 'utf8')).toBe('')
    heal()
    const exited = once(child, 'exit')
    await expect.poll(() => readFileSync(log, 'utf8')).toContain('left out')
    child.stdin!.end('exit')
    await exited
    const records = messages(readFileSync(log, 'utf8'))
    const written = records.filter(({ line }) => line !== undefined).map(({ line }) => line!)
    expect(written).toEqual(written.toSorted((a, b) => a - b))
    const leftOut = records.reduce((sum, { lines = 0 }) => sum + lines, 0)
    expect(written.length + leftOut).toBe(manyLines)
  })
})
