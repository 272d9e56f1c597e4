import { existsSync, readFileSync, statSync } from 'node:fs'
import { createServer, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { fetchEtcdSnapshot } from '../../../src/datastore/etcd-snapshot.ts'
import { temporaryDirectory } from './support.ts'
import { message } from './wire.ts'

/** What answers as the Maintenance service of an etcd does. */
async function etcd(answer: (stream: ServerHttp2Stream) => void): Promise<{ address: string }> {
  const server = createServer()
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {})
    if (headers[':path'] !== '/etcdserverpb.Maintenance/Snapshot') stream.close()
    else answer(stream as ServerHttp2Stream)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  return { address: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

function framed(body: Uint8Array): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(body.length, 1)
  return Buffer.concat([head, body])
}

const part = (blob: Buffer) => framed(message({ 3: blob }))

function begin(stream: ServerHttp2Stream, trailers: Record<string, string> | undefined): void {
  const head = { ':status': 200, 'content-type': 'application/grpc' }
  stream.respond(head, trailers === undefined ? {} : { waitForTrailers: true })
  if (trailers !== undefined) stream.on('wantTrailers', () => stream.sendTrailers(trailers))
}

const limitBytes = 200_000
const file = () => join(temporaryDirectory(), 'snapshot')

test('a snapshot is put together of its messages, wherever they are cut', async () => {
  const blobs = [1, 2, 3].map((byte) => Buffer.alloc(50_000, byte))
  const sent = Buffer.concat(blobs.map(part))
  const server = await etcd((stream) => {
    begin(stream, { 'grpc-status': '0' })
    for (let at = 0; at < sent.length; at += 9_999) stream.write(sent.subarray(at, at + 9_999))
    stream.end()
  })
  const path = file()
  await fetchEtcdSnapshot({ server, path, limitBytes })
  expect(readFileSync(path).equals(Buffer.concat(blobs))).toBe(true)
  expect(statSync(path).mode & 0o777).toBe(0o600)
  // Nothing that is there is replaced.
  await expect(fetchEtcdSnapshot({ server, path, limitBytes })).rejects.toMatchObject({
    cause: { code: 'EEXIST' },
  })
})

test.each<[string, (stream: ServerHttp2Stream) => void, RegExp | string]>([
  [
    'is refused',
    (stream) => {
      begin(stream, { 'grpc-status': '7', 'grpc-message': 'no%20rights' })
      stream.end()
    },
    /cannot call Snapshot at http:\/\/127\.0\.0\.1:\d+: no rights$/,
  ],
  [
    'ends in an error',
    (stream) => {
      begin(stream, { 'grpc-status': '14', 'grpc-message': 'it broke' })
      stream.end(part(Buffer.alloc(10)))
    },
    'it broke',
  ],
  [
    'ends in the middle of a message',
    (stream) => {
      begin(stream, { 'grpc-status': '0' })
      stream.end(part(Buffer.alloc(100)).subarray(0, 50))
    },
    'its last message is cut',
  ],
  [
    'has no end',
    (stream) => {
      begin(stream, undefined)
      stream.end(part(Buffer.alloc(10)))
    },
    'the connection ended before the answer',
  ],
  [
    'is larger than what it is of',
    (stream) => {
      begin(stream, { 'grpc-status': '0' })
      for (let count = 0; count < 3; count++) stream.write(part(Buffer.alloc(90_000)))
      stream.end()
    },
    'it has more than 200000 bytes',
  ],
  [
    'announces a message larger than any',
    (stream) => {
      begin(stream, { 'grpc-status': '0' })
      stream.end(Buffer.from([0, 0xff, 0xff, 0xff, 0xff]))
    },
    'a message has more than 4194304 bytes',
  ],
])('one that %s is none', async (_, answer, reason) => {
  const server = await etcd(answer)
  const path = file()
  const failure: unknown = await fetchEtcdSnapshot({ server, path, limitBytes }).catch(
    (error: unknown) => error,
  )
  const said: string[] = []
  for (let error = failure; error instanceof Error; error = error.cause) said.push(error.message)
  expect(said.join(': ')).toMatch(reason)
  expect(said[0]).toBe('cannot take a snapshot of etcd')
  // Whoever called removes what was begun.
  expect(existsSync(path)).toBe(true)
})
