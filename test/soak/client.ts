/**
 * Writers, readers and watchers of several API servers: node client.ts KUBECONFIG URL...
 *
 * Each request has its server, and who gets no answer goes to the next one, as whoever has a list of servers would. Prints
 * "writing" when it has begun. At the end of its input it stops and prints what it did and saw: History, as JSON.
 */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../../src/base/errors.ts'
import { Connections, type HttpRequest, request, requestStream } from '../../src/base/http.ts'
import { readKubeconfig } from '../integration/harness/kubeconfig.ts'
import type { History, Listing, Outcome, Read, WatchStep, Write } from './history.ts'

const writers = 4
const pauseMs = 100
/** For an answer; a watch is left when it says nothing for as long, since something is written all the time. */
const answerLimitMs = 3_000
/** Before a server that gave no answer is left for the next: all may be away. */
const retryMs = 200
const watchSeconds = 10
/** Of an object, from its creation to its deletion. */
const updates = 5
/** For what was written last to come to every watch, all servers being back. */
const lastLimitMs = 120_000
/** For all that is to be done at the end. */
const endLimitMs = 2 * lastLimitMs
const path = '/api/v1/namespaces/default/configmaps'
/** Each run has objects of its own. */
const run = `${Date.now()}`
const selector = `labelSelector=soak%3D${run}`

interface ConfigMap {
  readonly metadata: { readonly name: string; readonly resourceVersion: string }
  readonly data: { readonly value: string }
}

const [kubeconfig = '', ...urls] = process.argv.slice(2)
const { identity } = readKubeconfig(readFileSync(kubeconfig, 'utf8'))
const connections = urls.map((url) => new Connections(url, identity))
const end = new AbortController()
createInterface(process.stdin).on('close', () => {
  end.abort()
  // The servers may have gone with whoever started this.
  setTimeout(() => process.exit(1), endLimitMs).unref()
})
/** Of the watches, once all is written. */
const watchesEnd = new AbortController()

const writes: Write[] = []
const reads: Read[] = []
const unansweredReads: { startMs: number; endMs: number }[] = []
const watches: WatchStep[][] = []
let lastValue = 0
let resumed = 0

/** Whom one of the clients speaks to at present. */
class Place {
  #index: number

  constructor(index: number) {
    this.#index = index % urls.length
  }

  get server(): string {
    return urls[this.#index] ?? ''
  }

  request(rest: Omit<HttpRequest, 'url'> & { path: string }): HttpRequest {
    const kept = connections[this.#index]
    return {
      ...rest,
      url: `${this.server}${rest.path}`,
      timeoutMs: answerLimitMs,
      ...(kept && { connections: kept }),
      headers: { 'content-type': 'application/json' },
    }
  }

  async leave(): Promise<void> {
    this.#index = (this.#index + 1) % urls.length
    await sleep(retryMs)
  }
}

function valuesOf(items: readonly ConfigMap[]): Record<string, number> {
  return Object.fromEntries(items.map(({ metadata, data }) => [metadata.name, Number(data.value)]))
}

// ---- writers ----

/** 429: it was not begun. 5xx: it may have happened. */
function outcomeOf(status: number): Outcome {
  if (status >= 200 && status < 300) return 'done'
  return status >= 500 ? 'unknown' : 'refused'
}

async function write(
  place: Place,
  { kind, name, value, version }: Pick<Write, 'kind' | 'name' | 'value' | 'version'>,
): Promise<Write> {
  const method = { create: 'POST', update: 'PUT', delete: 'DELETE' } as const
  const metadata = { name, labels: { soak: run }, ...(version && { resourceVersion: String(version) }) }
  const asked = place.request({
    method: method[kind],
    path: kind === 'create' ? path : `${path}/${name}`,
    ...(kind !== 'delete' && { body: JSON.stringify({ metadata, data: { value: String(value) } }) }),
  })
  const begun = { kind, name, value, server: place.server, startMs: Date.now() }
  const { outcome, answer, body } = await request(asked).then(
    ({ status, body: text }) => ({ outcome: outcomeOf(status), answer: String(status), body: text }),
    (error: unknown) => ({ outcome: 'unknown' as const, answer: describeError(error), body: '' }),
  )
  const isVersioned = outcome === 'done' && kind !== 'delete'
  const done = {
    ...{ ...begun, outcome, answer, endMs: Date.now() },
    ...(isVersioned && { version: Number((JSON.parse(body) as ConfigMap).metadata.resourceVersion) }),
  }
  writes.push(done)
  if (outcome === 'unknown') await place.leave()
  else await sleep(pauseMs)
  return done
}

/** An object that is there, with the version that the next write names; undefined: it is not. Asks until that is known. */
async function current(place: Place, name: string): Promise<{ version: number; value: number } | undefined> {
  for (;;) {
    const found = await read(place, name)
    if (found === undefined) continue
    const [item] = found.items
    return item && { version: Number(item.metadata.resourceVersion), value: Number(item.data.value) }
  }
}

/** Life after life of objects, each of another name, and begun at another server. */
async function keepWriting(index: number): Promise<void> {
  for (let life = 0; !end.signal.aborted; life++)
    await live(new Place(index + life), `soak-${run}-${index}-${life}`)
}

async function live(place: Place, name: string): Promise<void> {
  const created = await write(place, { kind: 'create', name, value: ++lastValue })
  // One that was not answered may still happen: such a name is not created again.
  let now = created.outcome === 'done' ? created : await current(place, name)
  for (let left = updates; left > 0 && now !== undefined && !end.signal.aborted; left--) {
    const { version = 0 } = now
    const updated = await write(place, { kind: 'update', name, value: ++lastValue, version })
    now = updated.outcome === 'done' ? updated : await current(place, name)
  }
  while (now !== undefined) {
    const deleted = await write(place, { kind: 'delete', name, value: now.value })
    now = deleted.outcome === 'done' ? undefined : await current(place, name)
  }
}

/** What is to come to all watches. */
async function writeLast(): Promise<string> {
  const place = new Place(0)
  for (let number = 0; ; number++) {
    const name = `soak-${run}-last-${number}`
    const { outcome } = await write(place, { kind: 'create', name, value: ++lastValue })
    if (outcome === 'done') return name
  }
}

// ---- readers ----

/** One object, or all; undefined: no answer, and the next question goes to the next server. */
async function read(
  place: Place,
  name?: string,
): Promise<{ record: Read; items: readonly ConfigMap[] } | undefined> {
  const startMs = Date.now()
  const { server } = place
  try {
    const asked = name === undefined ? `${path}?${selector}` : `${path}/${name}`
    const { status, body } = await request(place.request({ path: asked }))
    if (status !== 200 && !(status === 404 && name !== undefined))
      throw new Error(`the read was answered with ${status}`)
    const { items, metadata } = parseRead(status, body)
    const record = {
      ...{ server, startMs, endMs: Date.now(), objects: valuesOf(items) },
      ...(name === undefined ? { version: Number(metadata.resourceVersion) } : { name }),
    }
    reads.push(record)
    return { record, items }
  } catch {
    unansweredReads.push({ startMs, endMs: Date.now() })
    await place.leave()
    return undefined
  }
}

function parseRead(status: number, body: string) {
  if (status === 404) return { items: [], metadata: { resourceVersion: '' } }
  const answer = JSON.parse(body) as ConfigMap & { items?: readonly ConfigMap[] }
  return { items: answer.items ?? [answer], metadata: answer.metadata }
}

/** Each read at another server. */
async function keepReading(index: number): Promise<void> {
  for (let count = index; !end.signal.aborted; count++) {
    await read(new Place(count))
    await sleep(pauseMs)
  }
}

// ---- watchers ----

async function list(place: Place): Promise<Listing> {
  for (;;) {
    const found = await read(place)
    if (found === undefined) continue
    const { version = 0, objects } = found.record
    return { type: 'LISTED', version, objects }
  }
}

interface Heard {
  readonly type: WatchStep['type'] | 'BOOKMARK' | 'ERROR'
  readonly object: ConfigMap & { readonly code?: number }
}

/** Goes on from the last event wherever it finds a server, and lists only when it is told that what follows is not kept. */
async function watch(index: number, begun: () => void): Promise<void> {
  const place = new Place(index)
  const steps: WatchStep[] = []
  watches.push(steps)
  let version = 0
  let isExpired = true
  while (!watchesEnd.signal.aborted) {
    if (isExpired) {
      const listing = await list(place)
      version = listing.version
      steps.push(listing)
      isExpired = false
      begun()
    }
    try {
      // It ends now and then by itself, and goes on at the next server.
      const query = `?watch=1&timeoutSeconds=${watchSeconds + index}&allowWatchBookmarks=true&${selector}&resourceVersion=${version}`
      const { status, body } = await requestStream({
        ...place.request({ path: `${path}${query}` }),
        signal: watchesEnd.signal,
        maxBytes: Number.POSITIVE_INFINITY,
      })
      if (status !== 200) isExpired = status === 410
      else
        for await (const { type, object } of linesOf(body)) {
          if (type === 'ERROR') {
            isExpired = object.code === 410
            break
          }
          version = Number(object.metadata.resourceVersion)
          if (type !== 'BOOKMARK' && type !== 'LISTED')
            steps.push({ type, name: object.metadata.name, value: Number(object.data.value), version })
        }
    } catch {
      // It goes on with the next server.
    }
    if (watchesEnd.signal.aborted) return
    resumed++
    if (!isExpired) await place.leave()
  }
}

async function* linesOf(body: AsyncIterable<Buffer>): AsyncGenerator<Heard> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const part of body) {
    const lines = (rest + decoder.decode(part, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) yield JSON.parse(line) as Heard
  }
}

// ---- all of it ----

const watching = urls.map((_, index) => {
  const begun = Promise.withResolvers<void>()
  return { begun: begun.promise, ended: watch(index, begun.resolve) }
})
await Promise.all(watching.map(({ begun }) => begun))
process.stdout.write('writing\n')
await Promise.all([
  ...Array.from({ length: writers }, (_, index) => keepWriting(index)),
  ...urls.map((_, index) => keepReading(index)),
])
const last = await writeLast()
const reader = new Place(0)
while ((await read(reader)) === undefined);
const deadlineMs = Date.now() + lastLimitMs
const hasLast = (step: WatchStep) =>
  step.type === 'LISTED' ? step.objects[last] !== undefined : step.name === last
while (Date.now() < deadlineMs && !watches.every((steps) => steps.some(hasLast))) await sleep(pauseMs)
watchesEnd.abort()
await Promise.all(watching.map(({ ended }) => ended))
for (const kept of connections) kept[Symbol.dispose]()
const history: History = { writes, reads, unansweredReads, watches, resumed, last }
process.stdout.write(JSON.stringify(history), () => process.exit())
