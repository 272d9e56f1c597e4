import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { servicelb } from '../../../src/cluster/tasks/servicelb.ts'
import type { TaskContext } from '../../../src/cluster/tasks/task.ts'
import type { WatchedObject } from '../../../src/api/watch.ts'
import { node, service, slice, vip } from '../network/load-balancer/objects.ts'

type Kind = 'services' | 'nodes' | 'endpointslices'
interface Patch {
  readonly metadata: {
    readonly resourceVersion: string
    readonly uid: string
    readonly finalizers?: readonly string[]
  }
  readonly status?: { readonly loadBalancer: { readonly ingress: { ip: string }[] | null } }
}

/** An API server, as far as it is asked here. */
let server: Server
let objects: Record<Kind, Map<string, WatchedObject>>
/** What watches are told that begin later. */
let history: { kind: Kind; version: number; line: string }[]
let watches: { kind: Kind; response: ServerResponse }[]
let asked: string[]
let patches: string[]
let events: { reason: string; message: string; involvedObject: { name: string } }[]
/** Answered to the next writes in place of what would be. */
let refusals: number[]
let version: number
let end: AbortController
let row: string
let wake: () => void

beforeEach(async () => {
  objects = { services: new Map(), nodes: new Map(), endpointslices: new Map() }
  ;[history, watches, asked, patches, events, refusals] = [[], [], [], [], [], []]
  version = 1
  row = ''
  wake = () => {}
  end = new AbortController()
  server = createServer((request, response) => void answer(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterEach(() => {
  end.abort()
  server.closeAllConnections()
  server.close()
})

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname, searchParams } = new URL(request.url ?? '', 'http://server')
  const kind = pathname.split('/').find((part): part is Kind => part in objects)
  if (request.method === 'POST') {
    events.push(JSON.parse(await text(request)) as (typeof events)[number])
    response.writeHead(201).end('{}')
    return wake()
  }
  if (request.method === 'PATCH') return patch(pathname.split('/')[6] ?? '', request, response)
  if (kind === undefined) return void response.writeHead(404).end()
  asked.push(`${kind} ${searchParams.get('labelSelector') ?? searchParams.get('fieldSelector') ?? ''}`.trim())
  if (searchParams.has('watch')) {
    const since = Number(searchParams.get('resourceVersion'))
    for (const past of history) if (past.kind === kind && past.version > since) response.write(past.line)
    return void watches.push({ kind, response })
  }
  const items = [...objects[kind].values()]
  response.end(JSON.stringify({ metadata: { resourceVersion: String(version) }, items }))
}

async function patch(name: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { metadata, status } = JSON.parse(await text(request)) as Patch
  const found = objects.services.get(name)
  const refused = refusals.shift()
  const isOld = found?.metadata?.resourceVersion !== metadata.resourceVersion
  const ingress = status?.loadBalancer.ingress ?? []
  const what = metadata.finalizers === undefined ? ingress.map(({ ip }) => ip).join() : metadata.finalizers
  patches.push(`${name} ${what === '' ? 'none' : String(what)}`)
  wake()
  if (refused !== undefined || isOld) return void response.writeHead(refused ?? 409).end('{}')
  if (metadata.finalizers !== undefined)
    put('services', { ...found, metadata: { ...found?.metadata, finalizers: metadata.finalizers } })
  else
    put('services', {
      ...found,
      metadata: { ...found?.metadata, ...service(name, { manager: 'k8s-servicelb' }).metadata },
      status: { loadBalancer: { ingress } },
    })
  response.end('{}')
}

/** As somebody else would change it. */
function put(kind: Kind, object: WatchedObject): void {
  const changed = { ...object, metadata: { ...object.metadata, resourceVersion: String(++version) } }
  objects[kind].set(String(changed.metadata.name), changed)
  tell(kind, 'MODIFIED', changed)
}

function remove(kind: Kind, name: string): void {
  const found = objects[kind].get(name)
  objects[kind].delete(name)
  if (found !== undefined)
    tell(kind, 'DELETED', { ...found, metadata: { ...found.metadata, resourceVersion: String(++version) } })
}

function tell(kind: Kind, type: string, object: WatchedObject): void {
  const line = `${JSON.stringify({ type, object })}\n`
  history.push({ kind, version, line })
  for (const watch of watches) if (watch.kind === kind) watch.response.write(line)
}

function run(disable: readonly string[] = []): Promise<void> {
  const { port } = server.address() as AddressInfo
  const access = { server: `http://127.0.0.1:${port}`, identity: () => Promise.resolve({}) }
  const context = {
    access: { nodes: access, admin: access },
    board: {
      report({ state, message }: { state: string; message?: string }) {
        row = `${state}: ${message}`
        wake()
      },
      forget() {
        row = ''
        wake()
      },
    },
    config: {
      ...{ clusterCidr: '10.244.0.0/16', serviceCidr: '10.96.0.0/12', nodeName: 'one', disable },
      ...{ httpsListenPort: 6443, kubeApiserverArg: [] },
    },
    log: { info() {}, error() {}, warn() {}, debug() {} },
    whenReady: () => Promise.resolve(),
  } as unknown as TaskContext
  return servicelb.run(context, end.signal)
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise<void>((resolve) => (wake = resolve))
}

async function over(running: Promise<void>): Promise<void> {
  end.abort()
  await expect(running).rejects.toThrow('abort')
  expect(row).toBe('')
}

const one = node('one', { internal: ['192.0.2.1'] })
const two = node('two', { internal: ['192.0.2.2'] })

test('a cluster without such a Service pays for one watch', async () => {
  const running = run()
  await until(() => row === 'ready: there are no Services of type LoadBalancer')
  await over(running)
  expect(new Set(asked)).toEqual(new Set(['services spec.type=LoadBalancer']))
})

test('a Service gets addresses, and others as Nodes come, change and go', async () => {
  for (const object of [one, two]) objects.nodes.set(String(object.metadata?.name), object)
  objects.services.set('web', service('web'))
  const running = run()
  await until(() => row === 'ready: Services: 1; with addresses of nodes: 1')
  put('nodes', node('two', { internal: ['192.0.2.2'], ready: 'Unknown' }))
  await until(() => patches.length === 2)
  put('nodes', two)
  await until(() => patches.length === 3)
  remove('nodes', 'one')
  await until(() => patches.length === 4)
  expect(patches).toEqual([
    'web 192.0.2.1,192.0.2.2',
    'web 192.0.2.1',
    'web 192.0.2.1,192.0.2.2',
    'web 192.0.2.2',
  ])
  remove('services', 'web')
  await until(() => row === 'ready: there are no Services of type LoadBalancer')
  await over(running)
})

test('what is as it should be is not written', async () => {
  objects.nodes.set('one', one)
  objects.services.set('web', service('web', { ingress: vip('192.0.2.1'), manager: 'k8s-servicelb' }))
  const running = run()
  await until(() => row === 'ready: Services: 1; with addresses of nodes: 1')
  put('nodes', one)
  objects.services.set('next', service('next', { ports: [81] }))
  put('services', service('next', { ports: [81] }))
  await until(() => patches.length > 0)
  expect(patches).toEqual(['next 192.0.2.1'])
  await over(running)
})

test('a Service that has changed meanwhile is written when it is known anew, and one that cannot be written is in the way of no other', async () => {
  objects.nodes.set('one', one)
  for (const [index, name] of ['a', 'b', 'c'].entries())
    objects.services.set(name, service(name, { ports: [80 + index] }))
  refusals = [409, 500]
  const running = run()
  await until(() => row.startsWith('degraded: cannot write '))
  expect(patches).toEqual(['a 192.0.2.1', 'b 192.0.2.1', 'c 192.0.2.1'])
  await until(() => row === 'ready: Services: 3; with addresses of nodes: 3')
  expect(patches).toEqual(['a 192.0.2.1', 'b 192.0.2.1', 'c 192.0.2.1', 'b 192.0.2.1'])
  put('services', service('a'))
  await until(() => patches.length === 5)
  await over(running)
})

test('EndpointSlices of Services are asked for while the policy of one is Local', async () => {
  for (const object of [one, two]) objects.nodes.set(String(object.metadata?.name), object)
  const endpoints = [{ nodeName: 'two' }]
  objects.endpointslices.set('s', slice('s', { of: 'web', endpoints }))
  objects.services.set('web', service('web'))
  const running = run()
  await until(() => patches.length === 1)
  put('services', {
    ...objects.services.get('web'),
    ...{ spec: service('web', { spec: { externalTrafficPolicy: 'Local' } }).spec },
  })
  await until(() => patches.length === 2)
  put('endpointslices', slice('s', { of: 'web', endpoints: [{ nodeName: 'one' }] }))
  await until(() => patches.length === 3)
  remove('endpointslices', 's')
  await until(() => patches.length === 4)
  expect(patches).toEqual(['web 192.0.2.1,192.0.2.2', 'web 192.0.2.2', 'web 192.0.2.1', 'web none'])
  expect(new Set(asked.filter((line) => line.startsWith('endpointslices')))).toEqual(
    new Set([
      'endpointslices kubernetes.io/service-name in (kubernetes)',
      'endpointslices kubernetes.io/service-name in (kubernetes,web)',
    ]),
  )
  await over(running)
})

test('with many of them all slices are asked for', async () => {
  for (let index = 0; index < 100; index++)
    objects.services.set(
      `s${index}`,
      service(`s${index}`, { ports: [1000 + index], spec: { externalTrafficPolicy: 'Local' } }),
    )
  const running = run()
  await until(() => row.startsWith('ready'))
  expect(asked).toContain('endpointslices kubernetes.io/service-name')
  await over(running)
})

test('who gets nothing is told why, once, and the status names some', async () => {
  objects.nodes.set('one', one)
  objects.services.set('web', service('web', { createdAt: '2025-01-01T00:00:00Z' }))
  for (const name of ['a', 'b', 'c', 'd']) objects.services.set(name, service(name))
  objects.services.set('foreign', service('foreign', { ingress: vip('192.0.2.7'), manager: 'metallb' }))
  const running = run()
  await until(() => row !== '')
  const reason =
    'port 80/TCP of the nodes is that of the Service x/web: this one gets its addresses when that one gives it up'
  expect(row).toBe(
    `ready: Services: 6; with addresses of nodes: 1; refused: ${['a', 'b', 'c'].map((name) => `x/${name} (${reason})`).join(', ')}, and 1 more; left alone, as others have written their addresses: x/foreign ("metallb")`,
  )
  remove('services', 'foreign')
  await until(() => row.startsWith('ready: Services: 5; '))
  expect(
    events.map(({ reason: kind, message, involvedObject }) => [kind, involvedObject.name, message]),
  ).toEqual(['a', 'b', 'c', 'd'].map((name) => ['PortConflict', name, reason]))
  remove('services', 'web')
  await until(() => patches.length === 2)
  expect(patches).toEqual(['web 192.0.2.1', 'a 192.0.2.1'])
  await over(running)
})

test('however many get nothing, all are told', async () => {
  for (let index = 0; index < 50; index++)
    objects.services.set(`s${index}`, service(`s${index}`, { ports: [22] }))
  const running = run()
  await until(() => events.length === 50)
  expect(new Set(events.map(({ involvedObject }) => involvedObject.name)).size).toBe(50)
  await over(running)
})

test('left out, it takes back what it wrote, and is done', async () => {
  const ingress = vip('192.0.2.1')
  objects.services.set('ours', service('ours', { ingress, manager: 'k8s-servicelb' }))
  objects.services.set('theirs', service('theirs', { ingress, manager: 'metallb' }))
  objects.services.set('none', service('none'))
  refusals = [409]
  const running = run(['servicelb'])
  await until(() => patches.length === 1)
  put('services', service('ours', { ingress, manager: 'k8s-servicelb' }))
  await running
  expect(patches).toEqual(['ours none', 'ours none'])
  expect(new Set(asked)).toEqual(new Set(['services spec.type=LoadBalancer']))
})

test('what k3s has left of a cluster that was imported is made ours, and holds no Service any more', async () => {
  objects.nodes.set('one', one)
  objects.services.set('a', service('a', { ingress: vip('192.0.2.7'), manager: 'k3s', heldBy: 'k3s' }))
  objects.services.set('b', service('b', { ports: [81], heldBy: 'cloud-controller-manager' }))
  const running = run()
  await until(() => patches.length === 3)
  expect(patches.toSorted()).toEqual(['a 192.0.2.1', 'a example.com/other', 'b 192.0.2.1'])
  await over(running)
})

test('the same where it is left out', async () => {
  objects.services.set('a', service('a', { ingress: vip('192.0.2.7'), manager: 'k3s', heldBy: 'k3s' }))
  await run(['servicelb'])
  expect(patches).toEqual(['a example.com/other', 'a none'])
})
