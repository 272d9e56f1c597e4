import { once } from 'node:events'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect as connectTcp, createServer, type Server, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { expect, onTestFinished, test, vi } from 'vitest'
import { ApiBalancer } from '../../../src/balancer/api-balancer.ts'
import { serversIn } from '../../../src/balancer/server-list.ts'
import { type KnownServers, Servers } from '../../../src/balancer/servers.ts'
import { request } from '../../../src/base/http.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { freePort } from '../../free-port.ts'
import { testAuthority } from '../datastore/test-certificates.ts'
import { until } from '../supervisor/support.ts'

vi.setConfig({ testTimeout: 60_000 })

const timing = {
  intervalMs: 20,
  awayIntervalMs: 20,
  answerLimitMs: 300,
  patientLimitMs: 600,
  formerAfterMs: 60_000,
}
const authority = testAuthority()
const tls = { ca: authority.cert, checkedAs: '127.0.0.1' }
const slicesPath = '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices'

/** What answers as an API server does, with as much as the balancer asks. */
class FakeServer {
  readonly name: string
  isReady = true
  /** What it says the servers are. */
  listed: () => readonly FakeServer[]
  port = 0
  #server: Server | undefined
  readonly #sockets = new Set<Socket>()
  readonly #watches = new Set<() => void>()

  constructor(name: string, listed?: () => readonly FakeServer[]) {
    this.name = name
    this.listed = listed ?? (() => [this])
    onTestFinished(() => this.kill())
  }

  get endpoint(): string {
    return `https://127.0.0.1:${this.port}`
  }

  async start(): Promise<this> {
    const pair = authority.issue({ usage: 'server', addresses: ['127.0.0.1'] })
    const server = createTlsServer(pair, (asked, answer) => {
      const url = new URL(asked.url ?? '', 'https://localhost')
      if (url.pathname === '/readyz')
        return answer
          .writeHead(this.isReady ? 200 : 500)
          .end(this.isReady ? 'ok' : '[-]etcd failed: reason withheld')
      if (url.pathname !== slicesPath) return answer.end(this.name)
      if (url.searchParams.has('watch')) {
        answer.writeHead(200).flushHeaders()
        const tell = () => answer.end('{"type":"ERROR","object":{"code":410}}\n')
        this.#watches.add(tell)
        answer.on('close', () => this.#watches.delete(tell))
        return
      }
      const endpoints = this.listed().map(() => ({ addresses: ['127.0.0.1'] }))
      const items = this.listed().map(({ name, port }, index) => ({
        metadata: { name },
        endpoints: [endpoints[index]],
        ports: [{ name: 'https', port }],
      }))
      answer.end(JSON.stringify({ metadata: { resourceVersion: '1' }, items }))
    })
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket.on('error', () => {}))
      socket.on('close', () => this.#sockets.delete(socket))
    })
    server.listen(this.port, '127.0.0.1')
    await once(server, 'listening')
    this.port = (server.address() as AddressInfo).port
    this.#server = server
    return this
  }

  /** The list has changed. */
  tell(): void {
    for (const tell of this.#watches) tell()
  }

  kill(): void {
    this.#server?.close()
    this.#server = undefined
    for (const socket of this.#sockets) socket.destroy()
  }
}

/** Passes bytes on until it is told to be silent; then it keeps all connections and says nothing, as a machine that is cut off. */
async function gate(behind: FakeServer) {
  let isSilent = false
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}))
    const upstream = connectTcp(behind.port, '127.0.0.1').on('error', () => {})
    sockets.add(upstream)
    socket.on('data', (part) => isSilent || upstream.write(part))
    upstream.on('data', (part) => isSilent || socket.write(part))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return {
    endpoint: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    silence: (is: boolean) => void (isSilent = is),
  }
}

async function balance(
  listed: readonly string[],
  { fallback = [], former = [], formerAfterMs = timing.formerAfterMs } = {} as {
    fallback?: readonly string[]
    former?: readonly string[]
    formerAfterMs?: number
  },
) {
  const port = await freePort()
  const times = { ...timing, formerAfterMs }
  const servers = new Servers({ listed, fallback, former, tls, log: silentLogger, timing: times })
  const remembered: KnownServers[] = []
  const balancer = new ApiBalancer({
    ...{ servers, port, log: silentLogger },
    identity: async () => tls,
    remember: (known) => void remembered.push(known),
  })
  await balancer.start()
  await balancer.ready()
  onTestFinished(() => balancer.stop())
  const url = `https://127.0.0.1:${port}`
  const who = async () => (await request({ url: `${url}/`, tls, timeoutMs: 50_000 })).body
  return { servers, balancer, remembered, who, port }
}

/** A client that stays connected; resolves when it is cut off. */
async function stay(port: number) {
  const socket = connectTls({ port, host: '127.0.0.1', ca: authority.cert }).on('error', () => {})
  await once(socket, 'secureConnect')
  onTestFinished(() => void socket.destroy())
  let isOpen = true
  const closed = once(socket, 'close').then(() => void (isOpen = false))
  return { closed, isOpen: () => isOpen }
}

async function several(count: number): Promise<FakeServer[]> {
  const all: FakeServer[] = []
  for (let index = 0; index < count; index++) all.push(await new FakeServer(`s${index}`, () => all).start())
  return all
}

test('all but one server may die, in any order, and each that comes back is used again', async () => {
  for (const survivor of [0, 1, 2]) {
    const all = await several(3)
    const { servers, who } = await balance(all.map(({ endpoint }) => endpoint))
    await until(() => all.every(({ endpoint }) => servers.serves(endpoint)))
    for (const [index, server] of all.entries()) {
      if (index === survivor) continue
      server.kill()
      expect(await who()).not.toBe(server.name)
    }
    expect(await who()).toBe(`s${survivor}`)
    for (const [index, server] of all.entries()) if (index !== survivor) await server.start()
    await until(() => all.every(({ endpoint }) => servers.serves(endpoint)))
    all[survivor]?.kill()
    expect(await who()).not.toBe(`s${survivor}`)
  }
})

test('who is connected stays where he is while that one serves, and is cut off when it says that it is not ready', async () => {
  const [first, second] = await several(2)
  const { servers, who, port } = await balance([first!.endpoint, second!.endpoint])
  await until(() => [first, second].every((one) => servers.serves(one!.endpoint)))
  const before = await who()
  const client = await stay(port)
  expect(await who()).toBe(before)
  const [left, other] = before === 's0' ? [first!, second!] : [second!, first!]
  left.isReady = false
  await client.closed
  expect(await who()).toBe(other.name)
  left.isReady = true
  await until(() => servers.serves(left.endpoint))
  expect(await who()).toBe(other.name)
})

test('connections to a machine that is silent are ended after two failures, if there is another; else they stay', async () => {
  const [first, second] = await several(2)
  const silent = await gate(first!)
  first!.listed = () => []
  second!.listed = () => []
  const { servers, who, port } = await balance([silent.endpoint])
  expect(await who()).toBe('s0')
  const client = await stay(port)
  silent.silence(true)
  await until(() => servers.trouble()?.includes(`${silent.endpoint} is away: `))
  expect(client.isOpen()).toBe(true)
  servers.list([silent.endpoint, second!.endpoint])
  await client.closed
  expect(await who()).toBe('s1')
})

test('a connection from before its only server was away is ended when that is back: nobody may know of it any more', async () => {
  const server = await new FakeServer('s0', () => []).start()
  const silent = await gate(server)
  const { servers, port, who } = await balance([silent.endpoint])
  await who()
  const client = await stay(port)
  silent.silence(true)
  await until(() => servers.trouble() !== undefined)
  expect(client.isOpen()).toBe(true)
  silent.silence(false)
  await client.closed
  expect(await who()).toBe('s0')
})

test('the list is what the cluster says, is remembered, and who is with a server that went is cut off', async () => {
  const all = await several(2)
  const { servers, remembered, port, who } = await balance([all[0]!.endpoint])
  await until(() => servers.endpoints.length === 2)
  expect(remembered.at(-1)?.servers).toEqual(all.map(({ endpoint }) => endpoint).toSorted())
  const before = await who()
  const client = await stay(port)
  const [left, stays] = before === 's0' ? [all[0]!, all[1]!] : [all[1]!, all[0]!]
  for (const server of all) server.listed = () => [stays]
  for (const server of all) server.tell()
  await client.closed
  await until(() => servers.endpoints.length === 1)
  expect(await who()).toBe(stays.name)
  expect(left.endpoint).not.toBe(servers.endpoints[0])
  expect(remembered.at(-1)).toEqual({ servers: [stays.endpoint], formerServers: [left.endpoint] })
  // A server that ends takes itself from the list first: an empty one is not believed.
  for (const server of all) server.listed = () => []
  for (const server of all) server.tell()
  expect(await who()).toBe(stays.name)
  expect(servers.endpoints).toEqual([stays.endpoint])
})

test('where it was told to join is gone to only while no server of the list serves', async () => {
  const [listed, told] = [new FakeServer('listed'), new FakeServer('told')]
  listed.port = await freePort()
  told.listed = listed.listed
  await told.start()
  const { servers, who, port } = await balance([listed.endpoint], { fallback: [told.endpoint] })
  expect(await who()).toBe('told')
  const client = await stay(port)
  await listed.start()
  await client.closed
  expect(await who()).toBe('listed')
  listed.kill()
  expect(await who()).toBe('told')
  expect(servers.trouble()).toMatch(/is away: /)
})

test('one that was a server before is asked when no other has served for long: it may be all that is left of the cluster', async () => {
  const [listed, former] = [new FakeServer('listed'), new FakeServer('former')]
  await listed.start()
  await former.start()
  const { servers, who, remembered } = await balance([listed.endpoint], {
    former: [former.endpoint],
    formerAfterMs: 200,
  })
  expect(await who()).toBe('listed')
  listed.kill()
  expect(await who()).toBe('former')
  await until(() => {
    // To a watch that has begun meanwhile.
    former.tell()
    return servers.endpoints.join() === former.endpoint
  })
  expect(remembered.at(-1)).toEqual({
    servers: [former.endpoint],
    formerServers: [listed.endpoint],
  })
})

test('a server of another cluster is not gone to, and one that comes late is waited for', async () => {
  const port = await freePort()
  const other = testAuthority('other').issue({ usage: 'server', addresses: ['127.0.0.1'] })
  const stranger = createTlsServer(other, (_, answer) => answer.end('stranger')).listen(0, '127.0.0.1')
  await once(stranger, 'listening')
  onTestFinished(() => void stranger.close())
  const strange = `https://127.0.0.1:${(stranger.address() as AddressInfo).port}`
  const server = new FakeServer('s0')
  server.port = port
  const { servers, who, balancer } = await balance([strange, server.endpoint])
  await servers.whenNoneServes(new AbortController().signal)
  expect(balancer.status()).toMatchObject({
    state: 'ready',
    reason: expect.stringMatching(/is away: .*self-signed|unable/),
  })
  const waiting = who()
  await server.start()
  expect(await waiting).toBe('s0')
})

test('of the slices of the Service kubernetes each address is a server, and what is no address is passed over', () => {
  const ports = [{ name: 'https', port: 6443 }]
  expect(
    serversIn([
      { endpoints: [{ addresses: ['192.0.2.2'] }, { addresses: ['192.0.2.1'] }], ports },
      { endpoints: [{ addresses: ['fd00::1', 'example.org', 7, 'a/../b'] }], ports },
      { endpoints: [{ addresses: ['192.0.2.3'] }], ports: [{ name: 'https', port: 70_000 }] },
      { endpoints: null, ports: null },
    ]),
  ).toEqual(['https://192.0.2.1:6443', 'https://192.0.2.2:6443', 'https://[fd00::1]:6443'])
  const many = Array.from({ length: 100 }, (_, index) => ({ addresses: [`192.0.2.${index}`] }))
  expect(serversIn([{ endpoints: many, ports }])).toHaveLength(64)
})
