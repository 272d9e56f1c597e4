import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { Connections, request, requestStream } from '../../../src/base/http.ts'
import { preparePki, readIdentity } from '../../../src/pki/pki.ts'
import { temporaryDirectory } from '../datastore/support.ts'

/** The server's URL without a slash; it ends with the test. */
async function serve(listener: RequestListener, server: Server = createServer()): Promise<string> {
  server.on('request', listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

test('every status is an answer, and what was sent arrives', async () => {
  const url = await serve((asked, answer) => {
    asked.setEncoding('utf8').on('data', (body) => {
      answer.writeHead(418).end(`${asked.method} ${asked.headers['content-type']} ${body}`)
    })
  })
  const asked = { url, method: 'PUT', headers: { 'content-type': 'text/x' }, body: 'hello' } as const
  expect(await request(asked)).toEqual({ status: 418, body: 'PUT text/x hello' })
})

test('the body of a DELETE belongs to it, and the next request to nobody else', async () => {
  const url = await serve((asked, answer) => {
    let body = ''
    asked.setEncoding('utf8').on('data', (part: string) => (body += part))
    asked.on('end', () => answer.end(`${asked.method} ${body}`))
  })
  using connections = new Connections(url)
  for (const body of ['{"a":1}', 'ä'])
    expect((await request({ url, connections, method: 'DELETE', body })).body).toBe(`DELETE ${body}`)
})

test('with TLS both sides show who they are', async () => {
  const pki = await preparePki({
    ...{ dir: join(temporaryDirectory(), 'pki'), nodeName: 'a', nodeIp: '192.0.2.1' },
    ...{ advertiseAddress: '192.0.2.1', bindAddress: '127.0.0.1', serviceCidr: '10.96.0.0/12' },
    ...{ clusterDomain: 'cluster.local', tlsSan: [] },
  })
  const [own, client] = await Promise.all([
    readIdentity(pki, 'apiserver'),
    readIdentity(pki, 'kubelet-client'),
  ])
  const server = createTlsServer({ cert: own.cert, key: own.key })
  const url = (await serve((_, answer) => answer.end('secret'), server)).replace('http:', 'https:')
  expect(await request({ url, tls: client })).toEqual({ status: 200, body: 'secret' })
  // The system's authorities do not know it.
  await expect(request({ url })).rejects.toMatchObject({ code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' })
})

test('a Unix socket is spoken to as a host is', async () => {
  const socketPath = join(temporaryDirectory(), 's')
  const server = createServer((asked, answer) => answer.end(asked.url)).listen(socketPath)
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const url = 'http://localhost/v1/x'
  expect(await request({ url, socketPath })).toEqual({ status: 200, body: '/v1/x' })
  const nobody = request({ url, socketPath: `${socketPath}.none` })
  await expect(nobody).rejects.toMatchObject({
    code: 'ENOENT',
    message: `cannot GET ${url} at ${socketPath}.none`,
  })
})

test.each([
  ['sends nothing', () => {}],
  ['stops in the middle', (_: unknown, answer: { write: (text: string) => void }) => answer.write('x')],
] satisfies [string, RequestListener][])(
  'an answer that %s is given up, with the limit',
  async (_, listener) => {
    const url = await serve(listener)
    await expect(request({ url, timeoutMs: 50 })).rejects.toMatchObject({
      message: `cannot GET ${url} within 0.05 s`,
      code: 'TIME_LIMIT',
    })
    const stream = requestStream({ url, timeoutMs: 50 }).then(async ({ body }) => {
      for await (const _part of body);
    })
    await expect(stream).rejects.toMatchObject({ message: `cannot GET ${url} within 0.05 s` })
  },
)

test('an answer that is too long is given up, with the limit', async () => {
  const url = await serve((_, answer) => answer.end('x'.repeat(1001)))
  expect((await request({ url, maxBytes: 1001 })).body.length).toBe(1001)
  await expect(request({ url, maxBytes: 1000 })).rejects.toMatchObject({
    message: `cannot GET ${url}: the answer is longer than 1000 bytes`,
    code: 'HTTP_SIZE',
  })
})

test("a signal's reason is the reason", async () => {
  const url = await serve(() => stop.abort(new Error('stopped by hand')))
  const stop = new AbortController()
  await expect(request({ url, signal: stop.signal })).rejects.toThrow('stopped by hand')
})

test('a connection that is cut is told with its URL', async () => {
  const url = await serve((_, answer) => void answer.write('x', () => answer.destroy()))
  await expect(request({ url })).rejects.toMatchObject({ message: `cannot GET ${url}`, code: 'ECONNRESET' })
})

test('a stream may be read slowly, and left', async () => {
  const url = await serve((_, answer) => {
    for (let part = 0; part < 64; part++) answer.write(Buffer.alloc(65_536, part))
    answer.end()
  })
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  const { status, body } = await requestStream({ url, timeoutMs: 60_000, maxBytes: 64 * 65_536 })
  expect(status).toBe(200)
  let bytes = 0
  for await (const part of body) {
    // Longer than the limit, which is the server's alone.
    vi.advanceTimersByTime(61_000)
    bytes += part.length
  }
  expect(bytes).toBe(64 * 65_536)
  const left = await requestStream({ url, timeoutMs: 10_000 })
  for await (const _part of left.body) break
})

test('connections are used again', async () => {
  const ports = new Set<number | undefined>()
  const url = await serve((asked, answer) => {
    ports.add(asked.socket.remotePort)
    answer.end()
  })
  using connections = new Connections(url)
  for (let count = 0; count < 3; count++) await request({ url, connections })
  expect(ports.size).toBe(1)
})
