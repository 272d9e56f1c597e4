import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { connectControl } from '../../../src/control/client.ts'
import { exchange } from '../../../src/control/exchange.ts'
import { isRunning } from '../../../src/control/identity.ts'
import { serveControl } from '../../../src/control/server.ts'
import { daemonStatus, startDaemon, temporaryDirectory } from './support.ts'

let directory: ReturnType<typeof temporaryDirectory>
let path: string

beforeEach(() => {
  directory = temporaryDirectory()
  path = join(directory.path, 'control.sock')
})

afterEach(() => directory[Symbol.dispose]())

test('the status arrives as the daemon gave it', async () => {
  await using _server = await serveControl({
    path,
    log: silentLogger,
    handlers: { status: () => Promise.resolve(daemonStatus), stop: () => {} },
  })
  expect(await connectControl(path).status()).toEqual(daemonStatus)
})

describe('a stop', () => {
  test.each([true, false])('with pods: %j resolves when the daemon is gone', async (pods) => {
    await using daemon = await startDaemon(path)
    const identity = await connectControl(path).identity()
    await connectControl(path).stop({ pods })
    expect(isRunning(identity)).toBe(false)
    await expect(connectControl(path).status()).rejects.toMatchObject({ code: 'DAEMON_NOT_RUNNING' })
    expect(daemon.output()).toContain(`stopping with pods: ${pods}\n`)
  })

  test('waits for a daemon that takes its time, and may be asked for twice', async () => {
    const permission = join(directory.path, 'permission')
    await using daemon = await startDaemon(path, permission)
    const client = connectControl(path)
    const stops = [client.stop({ pods: false }), client.stop({ pods: false })]
    await daemon.untilOutput('serving\nasked to stop\nasked to stop\n')
    expect(await client.status()).toMatchObject({ nodeReady: true })
    writeFileSync(permission, '')
    await Promise.all(stops)
    await expect(client.status()).rejects.toMatchObject({ code: 'DAEMON_NOT_RUNNING' })
  })

  test('is waited for as long as its signal allows', async () => {
    await using daemon = await startDaemon(path, join(directory.path, 'permission'))
    const patience = new AbortController()
    const stopping = connectControl(path).stop({ pods: false }, { signal: patience.signal })
    await daemon.untilOutput('asked to stop')
    patience.abort()
    await expect(stopping).rejects.toMatchObject({ name: 'AbortError' })
    expect(await connectControl(path).status()).toMatchObject({ nodeReady: true })
  })

  test('does not wait for the daemon that follows', async () => {
    const permission = join(directory.path, 'permission')
    const first = await startDaemon(path, permission)
    const stopping = connectControl(path).stop({ pods: false })
    await first.untilOutput('asked to stop')
    first.child.kill('SIGKILL')
    await once(first.child, 'exit')
    await using next = await startDaemon(path)
    await stopping
    expect(await connectControl(path).identity()).toMatchObject({ pid: next.child.pid })
  })

  test('is refused when there is no daemon', async () => {
    await expect(connectControl(path).stop({ pods: true })).rejects.toMatchObject({
      code: 'DAEMON_NOT_RUNNING',
    })
  })
})

describe('without a daemon that can be spoken with', () => {
  test('it is not running', async () => {
    await expect(connectControl(path).status()).rejects.toMatchObject({
      message: `cannot reach the daemon at ${path}: it is not running`,
      code: 'DAEMON_NOT_RUNNING',
      remedy: expect.stringContaining('systemctl start k8s'),
    })
  })

  test('it was killed', async () => {
    const { child } = await startDaemon(path)
    child.kill('SIGKILL')
    await once(child, 'exit')
    await expect(connectControl(path).status()).rejects.toMatchObject({ code: 'DAEMON_NOT_RUNNING' })
  })

  test('it does not answer', async () => {
    await using _daemon = await startDaemon(path, 'hang')
    const asked = exchange({ socketPath: path, message: 'status', body: undefined, timeoutMs: 100 })
    await expect(asked).rejects.toMatchObject({
      message: `cannot reach the daemon at ${path}: it has not answered within 100 ms`,
      code: 'DAEMON_SILENT',
    })
  })

  test('its path is too long', async () => {
    const long = join(directory.path, 'x'.repeat(100))
    await expect(connectControl(long).status()).rejects.toMatchObject({ code: 'SOCKET_PATH' })
  })

  test.each([
    ['not HTTP', 'hello\r\n', 'DAEMON_UNREACHABLE'],
    ['not JSON', 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi', 'DAEMON_UNREACHABLE'],
    ['no object', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1', 'DAEMON_UNREACHABLE'],
    ['another error', 'HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}', 'DAEMON_UNREACHABLE'],
    ['a part', 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"version', 'DAEMON_UNREACHABLE'],
    ['nothing', '', 'DAEMON_UNREACHABLE'],
  ])('what answers is %s', async (_, answer, code) => {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => socket.end(answer))
    }).listen(path)
    await once(server, 'listening')
    try {
      await expect(connectControl(path).status()).rejects.toMatchObject({ code })
    } finally {
      server.close()
    }
  })

  test('what answers never ends', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      const pour = () => {
        while (socket.writable && socket.write(' '.repeat(65_536)));
      }
      socket.on('drain', pour)
      pour()
    }).listen(path)
    await once(server, 'listening')
    try {
      await expect(connectControl(path).status()).rejects.toMatchObject({
        code: 'DAEMON_UNREACHABLE',
        cause: { message: expect.stringMatching(/: the answer is longer than 16777216 bytes$/) },
      })
    } finally {
      server.close()
    }
  })
})
