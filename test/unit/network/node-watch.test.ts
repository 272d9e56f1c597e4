import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { describeError } from '../../../src/base/errors.ts'
import type { NodeFacts } from '../../../src/network/desired.ts'
import { watchNodes } from '../../../src/network/node-watch.ts'

/** What the API server says, and what it was asked. */
let server: Server
let asked: string[]
let answers: ((response: ServerResponse) => void)[]
let end: AbortController
/** Each state that the watch has told, as texts. */
let told: string[]
let troubles: (string | undefined)[]
let wake: () => void

beforeEach(async () => {
  asked = []
  answers = []
  told = []
  troubles = []
  wake = () => {}
  end = new AbortController()
  server = createServer((request, response) => {
    asked.push(request.url ?? '')
    const answer = answers.shift()
    if (answer === undefined) response.destroy()
    else answer(response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterEach(() => {
  end.abort()
  server.closeAllConnections()
  server.close()
})

function start(): Promise<void> {
  const { port } = server.address() as AddressInfo
  return watchNodes({
    access: { server: `http://127.0.0.1:${port}`, identity: () => Promise.resolve({}) },
    signal: end.signal,
    pauseMs: 1,
    onChange(nodes) {
      told.push([...nodes.values()].map(describe).join(' '))
      wake()
    },
    onTrouble(error) {
      troubles.push(error === undefined ? undefined : describeError(error))
      wake()
    },
  })
}

function describe({ name, podCidrs, addresses }: NodeFacts): string {
  return `${name}=${podCidrs.join()}@${addresses.join()}`
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise<void>((resolve) => (wake = resolve))
}

function node(name: string, podCIDR: string, address: string, resourceVersion = '1') {
  return {
    metadata: { name, resourceVersion, creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: { podCIDR, podCIDRs: [podCIDR] },
    status: {
      addresses: [
        { type: 'InternalIP', address },
        { type: 'Hostname', address: name },
      ],
      images: [{ names: ['x'.repeat(1000)] }],
    },
  }
}

const list =
  (items: object[], metadata: object = { resourceVersion: '7' }) =>
  (response: ServerResponse) =>
    void response.end(JSON.stringify({ metadata, items }))
const events =
  (...lines: object[]) =>
  (response: ServerResponse) => {
    for (const line of lines) response.write(`${JSON.stringify(line)}\n`)
  }
const ended =
  (...lines: object[]) =>
  (response: ServerResponse) => {
    events(...lines)(response)
    response.end()
  }

test('Nodes are listed page by page, and their changes are followed', async () => {
  answers = [
    list([node('one', '10.244.0.0/24', '192.0.2.1')], { continue: 'a b', resourceVersion: '7' }),
    list([node('two', '10.244.1.0/24', '192.0.2.2')]),
    events(
      { type: 'ADDED', object: node('three', '10.244.2.0/24', '192.0.2.3', '8') },
      // Nothing that is looked at.
      { type: 'MODIFIED', object: node('two', '10.244.1.0/24', '192.0.2.2', '9') },
      { type: 'DELETED', object: node('two', '10.244.1.0/24', '192.0.2.2', '10') },
    ),
  ]
  void start()
  await until(() => told.length === 3)
  const [one, two, three] = [
    'one=10.244.0.0/24@192.0.2.1',
    'two=10.244.1.0/24@192.0.2.2',
    'three=10.244.2.0/24@192.0.2.3',
  ]
  expect(told).toEqual([`${one} ${two}`, `${one} ${two} ${three}`, `${one} ${three}`])
  expect(asked).toEqual([
    '/api/v1/nodes?limit=100',
    '/api/v1/nodes?limit=100&continue=a+b',
    '/api/v1/nodes?watch=1&allowWatchBookmarks=true&resourceVersion=7',
  ])
})

test('a watch that ends goes on where it was, and one that has missed something begins anew', async () => {
  answers = [
    list([]),
    ended({ type: 'BOOKMARK', object: { metadata: { resourceVersion: '20' } } }),
    ended({ type: 'ERROR', object: { code: 410 } }),
    list([node('one', '10.244.0.0/24', '192.0.2.1')], { resourceVersion: '30' }),
    events(),
  ]
  void start()
  await until(() => told.length === 2)
  expect(asked.slice(1, 4)).toEqual([
    '/api/v1/nodes?watch=1&allowWatchBookmarks=true&resourceVersion=7',
    '/api/v1/nodes?watch=1&allowWatchBookmarks=true&resourceVersion=20',
    '/api/v1/nodes?limit=100',
  ])
})

test('a server that answers nonsense, or ends in the middle of a word, is asked again', async () => {
  answers = [
    (response) => void response.end('{'),
    list([]),
    (response) => void response.end('{"type":"ADDED","obj'),
    list([node('one', '10.244.0.0/24', '192.0.2.1')]),
    events({ type: 'ADDED', object: { metadata: { name: 7 }, spec: 3, status: { addresses: 'no' } } }),
  ]
  void start()
  await until(() => told.length === 1)
  expect(told).toEqual([''])
  expect(asked.length).toBeGreaterThan(1)
})

test('what a Node says of itself is bounded, and whatever is no text is passed over', async () => {
  const addresses = [null, 7, {}, { type: 'InternalIP', address: 5 }]
  const many = Array.from({ length: 1000 }, () => ({ type: 'InternalIP', address: 'y'.repeat(1000) }))
  answers = [
    list([
      {
        metadata: { name: 'bad' },
        spec: { podCIDRs: [1, 'x'.repeat(1000)] },
        status: { addresses: [...addresses, ...many] },
      },
    ]),
    events(),
  ]
  void start()
  await until(() => told.length === 1)
  expect(told[0]).toBe(`bad=${'x'.repeat(128)}@${Array(8).fill('y'.repeat(128)).join()}`)
})

test('a refusal is told when it lasts, and when it is over', async () => {
  answers = [
    ...Array.from({ length: 5 }, () => (response: ServerResponse) => void response.writeHead(403).end('{}')),
    list([]),
    events(),
  ]
  void start()
  await until(() => troubles.length === 2)
  expect(troubles).toEqual(['cannot list /api/v1/nodes: HTTP 403: {}', undefined])
})

test('it ends when the signal fires', async () => {
  answers = [list([]), events()]
  const watching = start()
  await until(() => told.length === 1)
  end.abort()
  await expect(watching).resolves.toBeUndefined()
})
