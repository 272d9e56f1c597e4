import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AppError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { type ControlHandlers, serveControl } from '../../../src/control/server.ts'
import { connectControl } from '../../../src/control/client.ts'
import { daemonStatus, sendRaw, startDaemon, temporaryDirectory } from './support.ts'

let directory: ReturnType<typeof temporaryDirectory>
let path: string

beforeEach(() => {
  directory = temporaryDirectory()
  path = join(directory.path, 'run', 'control.sock')
})

afterEach(() => directory[Symbol.dispose]())

const serve = (handlers: Partial<ControlHandlers> = {}) =>
  serveControl({
    path,
    log: silentLogger,
    handlers: { status: () => daemonStatus, stop: () => {}, ...handlers },
  })

describe('the socket', () => {
  test('is for the daemon alone, as is its directory', async () => {
    await using _server = await serve()
    expect(statSync(path).isSocket()).toBe(true)
    expect((statSync(path).mode & 0o777).toString(8)).toBe('600')
    expect((statSync(join(path, '..')).mode & 0o777).toString(8)).toBe('700')
    expect(readdirSync(join(path, '..'))).toEqual(['control.sock'])
  })

  test('goes with its server', async () => {
    const server = await serve()
    await server[Symbol.asyncDispose]()
    expect(readdirSync(join(path, '..'))).toEqual([])
  })

  test('of a daemon that was killed is replaced', async () => {
    const { child } = await startDaemon(path)
    child.kill('SIGKILL')
    await once(child, 'exit')
    expect(existsSync(path)).toBe(true)
    await using _server = await serve()
    expect(await connectControl(path).identity()).toMatchObject({ pid: process.pid })
  })

  test('of a living daemon is refused with its pid', async () => {
    await using daemon = await startDaemon(path)
    await expect(serve()).rejects.toMatchObject({
      code: 'DAEMON_RUNNING',
      message: `cannot serve ${path}: the daemon with pid ${daemon.child.pid} serves it`,
      fields: { pid: daemon.child.pid },
    })
    expect(await connectControl(path).identity()).toMatchObject({ pid: daemon.child.pid })
    expect(readdirSync(join(path, '..'))).toEqual(['control.sock'])
  })

  test('of a daemon that does not answer is refused', async () => {
    await using _daemon = await startDaemon(path, 'hang')
    await expect(serve()).rejects.toMatchObject({
      code: 'DAEMON_RUNNING',
      message: `cannot serve ${path}: a daemon that does not answer serves it`,
    })
  })

  test('is left to the daemon that took it over', async () => {
    const server = await serve()
    const other = join(directory.path, 'other.sock')
    await using _daemon = await startDaemon(other)
    renameSync(other, path)
    await server[Symbol.asyncDispose]()
    expect(existsSync(path)).toBe(true)
  })

  test.each([
    ['a file', () => writeFileSync(path, 'precious')],
    ['a directory', () => mkdirSync(path)],
    ['a link', () => symlinkSync('/nowhere', path)],
  ])('is not put in the place of %s', async (_, occupy) => {
    mkdirSync(join(path, '..'), { mode: 0o700 })
    occupy()
    await expect(serve()).rejects.toMatchObject({
      code: 'SOCKET_PATH',
      message: `cannot serve ${path}: it exists and is not a socket`,
    })
    expect(readdirSync(join(path, '..'))).toEqual(['control.sock'])
  })

  test('is not put where others may write', async () => {
    mkdirSync(join(path, '..'))
    chmodSync(join(path, '..'), 0o777)
    await expect(serve()).rejects.toMatchObject({ code: 'SOCKET_PATH' })
    expect(readdirSync(join(path, '..'))).toEqual([])
  })

  test('has a path that the kernel can take', async () => {
    path = join(directory.path, 'x'.repeat(100), 'control.sock')
    await expect(serve()).rejects.toMatchObject({
      code: 'SOCKET_PATH',
      message: `cannot use the socket ${path}: its path is longer than 107 bytes`,
    })
    expect(readdirSync(directory.path)).toEqual([])
  })
})

describe('what cannot be understood is refused and changes nothing', () => {
  const post = (path: string, body: string, headers = '') =>
    `POST ${path} HTTP/1.1\r\nhost: k8s\r\ncontent-length: ${Buffer.byteLength(body)}\r\n${headers}\r\n${body}`

  test.each([
    [
      'another path',
      post('/v1/destroy', '{}'),
      404,
      'cannot answer /v1/destroy: the paths are /v1/daemon, /v1/status, /v1/stop',
    ],
    [
      'another method',
      'GET /v1/stop HTTP/1.1\r\nhost: k8s\r\n\r\n',
      405,
      'cannot answer GET /v1/stop: its method is POST',
    ],
    ['no body', post('/v1/stop', ''), 400, 'cannot read the request: its body is not a JSON object'],
    ['no JSON', post('/v1/stop', '{"pods":'), 400, 'cannot read the request: its body is not JSON'],
    ['a list', post('/v1/stop', '[true]'), 400, 'cannot read the request: its body is not a JSON object'],
    ['null', post('/v1/stop', 'null'), 400, 'cannot read the request: its body is not a JSON object'],
    ['no pods', post('/v1/stop', '{}'), 400, 'cannot read the request: "pods" is missing, not true or false'],
    [
      'a wrong type',
      post('/v1/stop', '{"pods":"no"}'),
      400,
      'cannot read the request: "pods" is "no", not true or false',
    ],
    [
      'an unknown key',
      post('/v1/stop', '{"pods":true,"force":1}'),
      400,
      'cannot read the request: the key "force" is unknown',
    ],
    [
      'a key of objects',
      post('/v1/stop', '{"pods":true,"__proto__":{}}'),
      400,
      'cannot read the request: the key "__proto__" is unknown',
    ],
    [
      'too much',
      post('/v1/stop', ' '.repeat(64 * 1024 + 1)),
      413,
      'cannot read the request: its body is longer than 65536 bytes',
    ],
  ])('%s', async (_, request, statusCode, message) => {
    let stops = 0
    await using _server = await serve({ stop: () => void (stops += 1) })
    const [head = '', body = ''] = (await sendRaw(path, request)).split('\r\n\r\n')
    expect(head).toMatch(new RegExp(`^HTTP/1.1 ${statusCode} `))
    expect((JSON.parse(body) as { error: { message: string } }).error.message).toBe(message)
    expect(stops).toBe(0)
  })

  test.each([
    ['what is not HTTP', '\u0016\u0003\u0001hello\r\n\r\n', 400],
    ['a header without end', `GET /v1/status HTTP/1.1\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`, 431],
  ])('%s', async (_, request, statusCode) => {
    await using _server = await serve()
    expect(await sendRaw(path, request)).toMatch(new RegExp(`^HTTP/1.1 ${statusCode} `))
    expect(await connectControl(path).status()).toEqual(daemonStatus)
  })

  test('clients beyond the limit are turned away, and the others served', async () => {
    await using _server = await serve()
    const sockets = Array.from({ length: 64 }, () => connect(path))
    await Promise.all(sockets.map((socket) => once(socket, 'connect')))
    expect(await sendRaw(path, 'GET /v1/status HTTP/1.1\r\nhost: k8s\r\n\r\n')).toBe('')
    for (const socket of sockets) socket.destroy()
    expect(await connectControl(path).status()).toEqual(daemonStatus)
  })

  test('a client that goes away in the middle', async () => {
    await using _server = await serve()
    const socket = connect(path)
    socket.end('POST /v1/stop HTTP/1.1\r\nhost: k8s\r\ncontent-length: 100\r\n\r\n{"po')
    await once(socket.resume(), 'close')
    expect(await connectControl(path).status()).toEqual(daemonStatus)
  })
})

describe('a handler that fails', () => {
  test('is heard of with its code and remedy', async () => {
    const failure = new AppError(
      'cannot read the Node',
      { code: 'NODE', remedy: 'Wait.' },
      { cause: new Error('EIO') },
    )
    await using _server = await serve({ status: () => Promise.reject(failure) })
    await expect(connectControl(path).status()).rejects.toMatchObject({
      message: 'cannot read the Node: EIO',
      code: 'NODE',
      remedy: 'Wait.',
    })
  })

  test('by a bug does not end the daemon', async () => {
    await using _server = await serve({
      status: () => {
        throw new TypeError('undefined is not a function')
      },
    })
    await expect(connectControl(path).status()).rejects.toMatchObject({ code: 'INTERNAL' })
    expect(await connectControl(path).identity()).toMatchObject({ pid: process.pid })
  })
})
