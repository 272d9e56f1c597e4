import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Api, openApi, type WatchEvent } from '../../../src/api/client.ts'
import { isStatus } from '../../../src/base/errors.ts'

interface Asked {
  readonly method: string | undefined
  readonly url: string
  readonly type: string | undefined
  readonly body: string
  readonly port: number | undefined
}

let server: Server
let asked: Asked[]
/** What becomes of each request, in their order; of the last one, for all that follow. */
let answers: ((response: ServerResponse) => void)[]
let end: AbortController
let api: Api

beforeEach(async () => {
  asked = []
  answers = []
  end = new AbortController()
  server = createServer((request, response) => void answer(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  api = await openApi(access(), end.signal)
})
afterEach(() => {
  api[Symbol.dispose]()
  server.closeAllConnections()
  server.close()
})

function access() {
  const { port } = server.address() as AddressInfo
  return { server: `http://127.0.0.1:${port}`, identity: () => Promise.resolve({}) }
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method, url = '', headers, socket } = request
  const body = await text(request)
  asked.push({ method, url, type: headers['content-type'], body, port: socket.remotePort })
  const [next] = answers.length > 1 ? answers.splice(0, 1) : answers
  next?.(response)
}

const says =
  (object: unknown, status = 200) =>
  (response: ServerResponse) =>
    void response.writeHead(status).end(typeof object === 'string' ? object : JSON.stringify(object))

const name = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'a', namespace: 'x' },
} as const
const path = '/api/v1/namespaces/x/configmaps/a'

test('an object is asked for by its name or its path, over one connection', async () => {
  answers = [says({ data: 1 }), says({ data: 2 }), says({}, 404)]
  expect(await api.get(name)).toEqual({ data: 1 })
  expect(await api.get(path)).toEqual({ data: 2 })
  expect(await api.get(path)).toBeUndefined()
  expect(asked.map(({ url }) => url)).toEqual([path, path, path])
  expect(new Set(asked.map(({ port }) => port)).size).toBe(1)
})

test('a refusal has the words, the reason and the status of the API server', async () => {
  const status = { kind: 'Status', reason: 'Forbidden', message: 'b may not', code: 403 }
  answers = [says(status, 403)]
  const error = await api.get(name).catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({
    ...{ code: 'API_REFUSED', fields: { status: 403, reason: 'Forbidden' } },
    message: 'cannot read ConfigMap a: HTTP 403 Forbidden: b may not',
  })
  expect([isStatus(error, 403), isStatus(error, 404, 409), isStatus(new Error('403'), 403)]).toEqual([
    ...[true, false, false],
  ])
  await expect(api.list(`${path}?limit=1`)).rejects.toThrow(
    `cannot list ${path}: HTTP 403 Forbidden: b may not`,
  )
})

test.each([
  ['that is no JSON', 'x'.repeat(10_000), `HTTP 500: ${'x'.repeat(500)}`],
  ['whose fields are no texts', { reason: 7, message: {} }, 'HTTP 500: {"reason":7,"message":{}}'],
  ['that is null', 'null', 'HTTP 500: null'],
])('an answer %s is told in short', async (_, body, told) => {
  answers = [says(body, 500)]
  for (const refused of [api.get(path), api.apply(name), api.patch(path, {}), api.changed(path, '1', 1000)]) {
    const { message } = (await refused.catch((thrown: unknown) => thrown)) as Error
    expect(message.slice(message.indexOf('HTTP'))).toBe(told)
  }
})

test('lists come page by page', async () => {
  answers = [
    says({ metadata: { resourceVersion: '7', continue: 'a b' }, items: [1, 2] }),
    says({ metadata: { resourceVersion: '7' }, items: null }),
  ]
  expect(await api.list('/all?x=1')).toEqual({ items: [1, 2], resourceVersion: '7' })
  expect(asked.map(({ url }) => url)).toEqual(['/all?x=1&limit=100', '/all?x=1&limit=100&continue=a+b'])
})

test('objects that somebody has made large come one by one', async () => {
  answers = [
    says({ metadata: { continue: 'b' }, items: [1] }),
    says(' '.repeat((16 << 20) + 1)),
    says({ metadata: { continue: 'c' }, items: [2] }),
    says({ metadata: { resourceVersion: '7' }, items: [3] }),
  ]
  expect(await api.list('/all')).toEqual({ items: [1, 2, 3], resourceVersion: '7' })
  expect(asked.map(({ url }) => url)).toEqual([
    ...['/all?limit=100', '/all?limit=100&continue=b'],
    ...['/all?limit=1&continue=b', '/all?limit=1&continue=c'],
  ])
  answers = [says(' '.repeat((16 << 20) + 1))]
  await expect(api.list('/all')).rejects.toMatchObject({ code: 'HTTP_SIZE' })
})

test('rows have the cells by the names of their columns', async () => {
  const columnDefinitions = [{ name: 'Name' }, { name: 'Age' }]
  answers = [
    says({
      metadata: { resourceVersion: '7' },
      columnDefinitions,
      rows: [{ cells: ['a', 7] }, { cells: [] }],
    }),
  ]
  expect((await api.rows('/all')).rows).toEqual([
    { Name: 'a', Age: '7' },
    { Name: '', Age: '' },
  ])
  expect(asked[0]?.url).toBe('/all?includeObject=None&limit=100')
})

test('what is written is what is there then; what somebody else has written, or is gone, is left', async () => {
  const sent = { spec: 1 }
  answers = [says({ version: 1 }), says({ version: 2 }), says({ version: 3 }), says({}, 409)]
  expect(await api.create('/all', sent)).toEqual({ version: 1 })
  expect(await api.replace(path, sent)).toEqual({ version: 2 })
  expect(await api.patch(path, sent)).toEqual({ version: 3 })
  expect(await api.create('/all', sent)).toBeUndefined()
  answers = [says({}, 404)]
  expect(await api.replace(path, sent)).toBeUndefined()
  expect(asked.map(({ method, type, body }) => `${method} ${type} ${body}`)).toEqual(
    [
      ...['POST application/json', 'PUT application/json', 'PATCH application/merge-patch+json'],
      ...['POST application/json', 'PUT application/json'],
    ].map((line) => `${line} {"spec":1}`),
  )
})

test('what is applied is ours, with a label that says so', async () => {
  answers = [says({ metadata: { uid: 'u' } })]
  await api.apply({ ...name, metadata: { ...name.metadata, labels: { b: 'c' } } })
  expect(asked[0]).toMatchObject({
    ...{ method: 'PATCH', url: `${path}?fieldManager=k8s&force=true`, type: 'application/apply-patch+yaml' },
    body: JSON.stringify({
      ...name,
      metadata: { ...name.metadata, labels: { b: 'c', 'app.kubernetes.io/managed-by': 'k8s' } },
    }),
  })
})

test('exactly the object that was seen is removed, as often as one asks', async () => {
  answers = [says({}), says({}, 409), says({}, 404)]
  for (const uid of ['u', 'v', undefined]) await api.remove(name, uid)
  expect(asked.map(({ body }) => (JSON.parse(body) as { preconditions?: object }).preconditions)).toEqual([
    ...[{ uid: 'u' }, { uid: 'v' }, undefined],
  ])
})

test('events are told as they come, however they are cut', async () => {
  const line = (type: string) => `${JSON.stringify({ type, object: { metadata: { name: 'ä' } } })}\n`
  const bytes = Buffer.from(line('ADDED') + line('DELETED'))
  const cut = bytes.indexOf('ä') + 1
  answers = [
    async (response) => {
      for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
        response.write(part)
        await new Promise((resolve) => setImmediate(resolve))
      }
      response.end()
    },
  ]
  const events: WatchEvent<unknown>[] = []
  for await (const event of api.watch('/all', '7')) events.push(event)
  expect(events).toEqual(['ADDED', 'DELETED'].map((type) => ({ type, object: { metadata: { name: 'ä' } } })))
  expect(asked[0]?.url).toBe('/all?watch=1&allowWatchBookmarks=true&resourceVersion=7')
})

test('an event without an end is not waited for', async () => {
  answers = [says('x'.repeat((16 << 20) + 1))]
  const first = async () => {
    for await (const event of api.watch('/all', '7')) return event
  }
  await expect(first()).rejects.toMatchObject({ code: 'API_EVENT' })
})

test('a change is told, and the end of the time', async () => {
  answers = [(response) => void response.write('{'), says('')]
  await api.changed('/all', '7', 1500)
  await api.changed('/all', '7', 1500)
  expect(asked[0]?.url).toBe('/all?watch=1&resourceVersion=7&timeoutSeconds=2&includeObject=None')
})

test('all ends with the signal, and what takes too long by itself', async () => {
  answers = [() => {}]
  using hasty = await openApi(access(), end.signal, 1)
  await expect(hasty.get(path)).rejects.toMatchObject({ code: 'TIME_LIMIT' })
  const pending = api.get(path)
  end.abort(new Error('the end'))
  await expect(pending).rejects.toThrow('the end')
})
