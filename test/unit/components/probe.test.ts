import { once } from 'node:events'
import { createServer as createGrpcServer } from 'node:http2'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { probeGrpcSocket } from '../../../src/components/probe.ts'
import { temporaryDirectory } from '../supervisor/support.ts'

const never = new AbortController().signal

async function serve(server: Pick<Server, 'listen' | 'close' | 'once'>, path: string): Promise<Disposable> {
  server.listen(path)
  await once(server as Server, 'listening')
  return { [Symbol.dispose]: () => void server.close() }
}

test('a gRPC server answers', async () => {
  using directory = temporaryDirectory()
  const path = join(directory.path, 'grpc.sock')
  using _server = await serve(createGrpcServer(), path)
  await expect(probeGrpcSocket({ path, signal: never })).resolves.toBeUndefined()
})

test('whose connections the kernel alone accepts, as for a process that hangs, does not', async () => {
  using directory = temporaryDirectory()
  const path = join(directory.path, 'silent.sock')
  const giveUp = new AbortController()
  using _server = await serve(
    createServer(() => giveUp.abort()),
    path,
  )
  await expect(probeGrpcSocket({ path, signal: giveUp.signal })).rejects.toThrow(`${path} does not answer`)
})

test.each([
  ['closes', (path: string) => `${path} closes the connection`, ''],
  ['speaks otherwise', (path: string) => `${path} does not speak gRPC`, 'HTTP/1.1 400 Bad Request\r\n'],
])('one that %s is told', async (_, message, words) => {
  using directory = temporaryDirectory()
  const path = join(directory.path, 'other.sock')
  using _server = await serve(
    createServer((socket) => {
      socket.on('error', () => {})
      socket.resume().end(words)
    }),
    path,
  )
  await expect(probeGrpcSocket({ path, signal: never })).rejects.toThrow(message(path))
})

test('where nobody listens the reason is the system’s', async () => {
  await expect(probeGrpcSocket({ path: '/nowhere/grpc.sock', signal: never })).rejects.toThrow('ENOENT')
})
