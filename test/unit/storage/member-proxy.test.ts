import { writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { onTestFinished, expect, test } from 'vitest'
import { freePort } from '../../free-port.ts'
import type { TlsIdentity } from '../../../src/base/http.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { MemberProxy } from '../../../src/storage/member-proxy.ts'
import { Members } from '../../../src/storage/members.ts'
import { Member } from '../../../src/datastore/member.ts'
import { runDatastore, temporaryDirectory } from '../datastore/support.ts'
import { testAuthority, tlsFilesIn } from '../datastore/test-certificates.ts'
import { until } from '../supervisor/support.ts'

const timing = { intervalMs: 20, lonelyIntervalMs: 20, awayIntervalMs: 20, statusIntervalMs: 20 }

/** Members that are looked after, and a socket in front of them. */
async function standInFront(endpoints: readonly string[], tls: () => TlsIdentity = () => ({})) {
  const path = join(temporaryDirectory(), 'sock')
  const members = new Members({ endpoints, tls, key: '/registry', log: silentLogger, timing })
  const proxy = new MemberProxy({ path, members, tls, log: silentLogger })
  const end = new AbortController()
  const watching = members.watch(end.signal)
  await proxy.listen()
  onTestFinished(async () => {
    end.abort()
    await Promise.all([proxy.stop(), watching])
  })
  return { path, members, proxy, served: () => read(`unix://${path}`) }
}

async function read(address: string): Promise<void> {
  using member = new Member({ address })
  await member.read('/registry', { isLocal: false, signal: AbortSignal.timeout(30_000) })
}

/** Something that takes connections, and does with them what `onSocket` does. */
async function listener(onSocket: (socket: Socket) => void): Promise<{ endpoint: string; server: Server }> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}))
    onSocket(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server }
}

function datastoreIn(name: string, port = 0) {
  return runDatastore({
    path: join(temporaryDirectory(), name, 'state.db'),
    listen: { host: '127.0.0.1', port },
  })
}

test('the bytes go to a member that serves, past those that are silent, away or no etcd', async () => {
  const silent = await listener(() => {})
  const web = await listener((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
  const away = `http://127.0.0.1:${await freePort()}`
  const { listening } = await datastoreIn('a')
  const { members, served } = await standInFront([silent.endpoint, web.endpoint, away, listening])
  await served()
  expect(members.best).toBe(listening)
  await until(() => (members.trouble()?.split('; ').length ?? 0) === 3)
  expect(members.trouble()).toContain(`${away} is away: connect ECONNREFUSED`)
  await until(() =>
    members.trouble()?.includes(`${silent.endpoint} is away: cannot get an answer within 5 s`),
  )
})

test('who is connected stays where he is while that one serves, and is cut off when it ends', async () => {
  const first = await datastoreIn('a')
  const second = await datastoreIn('b')
  const { path, members, served } = await standInFront([first.listening, second.listening])
  await served()
  const stayed = members.best
  const connection = connect(path).resume()
  const closed = new Promise<void>((resolve) => connection.on('close', () => resolve()).on('error', () => {}))
  await until(() => members.trouble() === undefined)
  expect(members.best).toBe(stayed)
  await (stayed === first.listening ? first : second).stop()
  await closed
  await served()
  expect(members.best).toBe(stayed === first.listening ? second.listening : first.listening)
})

test('who comes while none serves waits until one does; who does not wait so long is forgotten', async () => {
  const port = await freePort()
  const { path, served, proxy } = await standInFront([`http://127.0.0.1:${port}`])
  const impatient = connect(path)
  await new Promise((resolve) => impatient.on('connect', resolve))
  impatient.write('PRI * HTTP/2.0\r\n')
  await until(() => proxy.clients === 1)
  impatient.destroy()
  await until(() => proxy.clients === 0)
  const waiting = served()
  await until(() => proxy.clients === 1)
  await datastoreIn('a', port)
  await expect(waiting).resolves.toBeUndefined()
})

test('what keeps a member from being trusted is told, and certificates that change are taken up', async () => {
  const directory = temporaryDirectory()
  const files = tlsFilesIn(directory)
  const authority = testAuthority()
  const server = authority.issue({ usage: 'server', addresses: ['127.0.0.1'] })
  const client = authority.issue({ usage: 'client' })
  writeFileSync(files.certFile, server.cert)
  writeFileSync(files.keyFile, server.key)
  writeFileSync(files.trustedCaFile, authority.cert)
  const { listening } = await runDatastore({
    path: join(directory, 'a/state.db'),
    listen: { host: '127.0.0.1', port: 0, tls: files },
  })
  let shown: TlsIdentity = { ca: testAuthority('another').cert, ...client }
  const { members, served } = await standInFront([listening], () => shown)
  await until(() => /is away: .*certificate/.test(members.trouble() ?? ''))
  shown = { ca: authority.cert, ...client }
  await served()
  await until(() => members.trouble() === undefined)
  expect(members.best).toBe(listening)
})

test('a member that takes no new connections is left, although it answers over the one that it has, and asked at leisure', async () => {
  const { listening } = await datastoreIn('a')
  const port = Number(new URL(listening).port)
  let isOpen = true
  let refused = 0
  const gate = await listener((socket) => {
    if (!isOpen) {
      refused++
      socket.destroy()
      return
    }
    const behind = connect(port, '127.0.0.1').on('error', () => {})
    socket.pipe(behind).pipe(socket)
  })
  const { path, members, served } = await standInFront([gate.endpoint])
  await served()
  isOpen = false
  const client = connect(path)
    .on('error', () => {})
    .resume()
  client.write('PRI * HTTP/2.0\r\n')
  await until(() => members.trouble()?.includes(`${gate.endpoint} is away: `))
  expect(members.best).toBeUndefined()
  client.destroy()
  const before = refused
  await until(() => refused > before)
  isOpen = true
  await served()
  await until(() => members.trouble() === undefined)
})

test('a member of another etcd is not gone to', async () => {
  const [first, second] = [await datastoreIn('a'), await datastoreIn('b')]
  using member = new Member({ address: first.listening })
  const { clusterId } = await member.read('/registry', { isLocal: true, signal: AbortSignal.timeout(30_000) })
  const { members, served } = await standInFront([second.listening, first.listening])
  members.clusterId = clusterId
  await until(() => members.trouble()?.includes(`${second.listening} is away: it belongs to another etcd`))
  await served()
  expect(members.best).toBe(first.listening)
})

test('an etcd belongs to the cluster that came first, and one with objects of nobody to none', async () => {
  const { listening } = await datastoreIn('a')
  using member = new Member({ address: listening })
  const claim = (value: string, prefix = '/registry') =>
    member.claim({ key: `/mark${prefix}`, value, prefix }, AbortSignal.timeout(30_000))
  expect(await claim('one')).toBe('one')
  expect(await claim('two')).toBe('one')
  expect(await claim('one')).toBe('one')
  expect(await claim('two', '/other')).toBe('two')
  // The first mark lies below it.
  expect(await claim('three', '/mark')).toBeUndefined()
})
