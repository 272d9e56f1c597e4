import { setTimeout as sleep } from 'node:timers/promises'
import { describeError, errorCode } from '../base/errors.ts'
import { request, requestStream, type TlsIdentity } from '../base/http.ts'
import type { NodeFacts } from './desired.ts'

/** Of a Node that lists fifty images, some 20 kB. */
const pageNodes = 100
const pageLimitBytes = 32 << 20
/** One event, a line. */
const lineLimitBytes = 2 << 20
/** What is read of one watch before the next one goes on where it ended. */
const watchLimitBytes = 1 << 30
/** The API server says each minute how far it is (WatchBookmarks): a connection that is silent for longer is dead. */
const silenceLimitMs = 150_000
const shortestPauseMs = 500
const longestPauseMs = 30_000
/** Of failures one after the other: whoever starts an API server anew is not told that it is away. */
const toldFrom = 5
/** Of what a Node says of itself; more is not looked at. */
const entriesLimit = 8
const textLimit = 128

export interface NodeWatchOptions {
  /** https://127.0.0.1:6443 */
  readonly server: string
  readonly identity: () => Promise<TlsIdentity>
  /** Gets all Nodes, whenever what is looked at of one has changed. */
  readonly onChange: (nodes: ReadonlyMap<string, NodeFacts>) => void
  /** Told why they cannot be watched, and with undefined that they are. */
  readonly onTrouble: (reason: string | undefined) => void
  readonly signal: AbortSignal
  /** What differs from half a second: after which a watch that has ended is begun anew. */
  readonly pauseMs?: number
}

/** What is read of a Node; it may say anything. */
interface NodeObject {
  readonly metadata?: {
    readonly name?: unknown
    readonly creationTimestamp?: unknown
    readonly resourceVersion?: string
  }
  readonly spec?: { readonly podCIDR?: unknown; readonly podCIDRs?: unknown }
  readonly status?: { readonly addresses?: unknown }
}

interface NodeList {
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string }
  readonly items?: readonly NodeObject[]
}

/** Watches all Nodes until the signal fires. What is kept of each is a few texts. */
export async function watchNodes(options: NodeWatchOptions): Promise<void> {
  const { signal, onChange, onTrouble, pauseMs: firstPauseMs = shortestPauseMs } = options
  let pauseMs = firstPauseMs
  let nodes: Map<string, NodeFacts> | undefined
  let version: string | undefined
  let failures = 0
  while (!signal.aborted) {
    try {
      if (nodes === undefined || version === undefined) {
        ;({ nodes, version } = await list(options))
        onChange(nodes)
      }
      if (failures >= toldFrom) onTrouble(undefined)
      failures = 0
      for await (const event of watch(options, version)) {
        pauseMs = firstPauseMs
        if (event.type === 'ERROR') {
          // Mostly 410: too much has happened since.
          version = undefined
          break
        }
        version = event.object.metadata?.resourceVersion ?? version
        if (event.type !== 'BOOKMARK' && take(nodes, event)) onChange(nodes)
      }
    } catch (error) {
      if (signal.aborted) return
      // A list that began anew tells whether the server is well.
      if (errorCode(error) === 'NODE_WATCH') version = undefined
      if (!isEnd(error) && ++failures >= toldFrom) onTrouble(describeError(error))
    }
    await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => {})
    pauseMs = Math.min(pauseMs * 2, longestPauseMs)
  }
}

/** The API server ends each watch after a while, and whoever is silent for too long is asked anew. */
function isEnd(error: unknown): boolean {
  return ['TIME_LIMIT', 'HTTP_SIZE', 'ECONNRESET'].includes(errorCode(error) ?? '')
}

interface NodeEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'
  readonly object: NodeObject
}

/** Whether it changes anything that is looked at. */
function take(nodes: Map<string, NodeFacts>, { type, object }: NodeEvent): boolean {
  const facts = factsOf(object)
  if (facts === undefined) return false
  if (type === 'DELETED') return nodes.delete(facts.name)
  const former = nodes.get(facts.name)
  if (former !== undefined && JSON.stringify(former) === JSON.stringify(facts)) return false
  nodes.set(facts.name, facts)
  return true
}

async function list({ server, identity, signal }: NodeWatchOptions) {
  const nodes = new Map<string, NodeFacts>()
  for (let from: string | undefined; ; ) {
    const rest = from === undefined ? '' : `&continue=${encodeURIComponent(from)}`
    const { status, body } = await request({
      url: `${server}/api/v1/nodes?limit=${pageNodes}${rest}`,
      ...{ tls: await identity(), signal, maxBytes: pageLimitBytes },
    })
    if (status !== 200) throw refusal(status)
    const { metadata, items = [] } = JSON.parse(body) as NodeList
    for (const node of items) {
      const facts = factsOf(node)
      if (facts !== undefined) nodes.set(facts.name, facts)
    }
    if (!metadata?.continue) return { nodes, version: metadata?.resourceVersion ?? '0' }
    from = metadata.continue
  }
}

async function* watch(
  { server, identity, signal }: NodeWatchOptions,
  version: string,
): AsyncGenerator<NodeEvent> {
  const { status, body } = await requestStream({
    url: `${server}/api/v1/nodes?watch=1&allowWatchBookmarks=true&resourceVersion=${version}`,
    ...{ tls: await identity(), signal, timeoutMs: silenceLimitMs, maxBytes: watchLimitBytes },
  })
  let rest: Buffer[] = []
  let restBytes = 0
  for await (const part of body) {
    if (status !== 200) throw refusal(status)
    let from = 0
    for (let end = part.indexOf(10); end >= 0; end = part.indexOf(10, from)) {
      const line = Buffer.concat([...rest, part.subarray(from, end)]).toString()
      rest = []
      restBytes = 0
      from = end + 1
      if (line !== '') yield JSON.parse(line) as NodeEvent
    }
    if (from === part.length) continue
    rest.push(part.subarray(from))
    restBytes += part.length - from
    if (restBytes > lineLimitBytes)
      throw Object.assign(new Error(`an event has more than ${lineLimitBytes} bytes`), { code: 'NODE_WATCH' })
  }
  if (status !== 200) throw refusal(status)
}

function refusal(status: number): Error {
  return Object.assign(new Error(`the API server answers ${status} to who asks for the Nodes`), {
    code: 'NODE_WATCH',
  })
}

/** undefined: it is no Node. */
function factsOf({ metadata, spec, status }: NodeObject): NodeFacts | undefined {
  const { name, creationTimestamp } = metadata ?? {}
  if (typeof name !== 'string') return undefined
  const ranges = Array.isArray(spec?.podCIDRs) ? (spec.podCIDRs as unknown[]) : [spec?.podCIDR]
  const entries = Array.isArray(status?.addresses) ? (status.addresses as unknown[]) : []
  const addresses = entries.flatMap((entry) => {
    const { type, address } = (entry ?? {}) as { type?: unknown; address?: unknown }
    return type === 'InternalIP' ? [address] : []
  })
  return {
    name,
    createdAt: typeof creationTimestamp === 'string' ? creationTimestamp : '',
    podCidrs: texts(ranges),
    addresses: texts(addresses),
  }
}

function texts(values: readonly unknown[]): string[] {
  const found = values.filter((value) => typeof value === 'string' && value !== '') as string[]
  return found.slice(0, entriesLimit).map((text) => text.slice(0, textLimit))
}
