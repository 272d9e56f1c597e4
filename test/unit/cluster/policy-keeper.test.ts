import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Exposition } from '../../../src/base/exposition.ts'
import { type KeeperContext, PolicyKeeper } from '../../../src/cluster/policy-keeper.ts'
import { Wakeup } from '../../../src/cluster/wakeup.ts'
import { policyFacts } from '../../../src/network/policy/facts.ts'
import { directions } from '../../../src/network/policy/ruleset.ts'
import type { WatchedObject } from '../../../src/api/watch.ts'
import { hostTree } from '../node/host-tree.ts'
import { namespace, pod, policy } from '../network/policy/objects.ts'

const settings = ['iptables', 'ip6tables'].map((family) => `/proc/sys/net/bridge/bridge-nf-call-${family}`)
const results = '/var/lib/cni/results'

let server: Server
/** What is listed; undefined: the API server does not answer. */
let lists: { pods: WatchedObject[]; namespaces: WatchedObject[] } | undefined
let watches: Map<string, ServerResponse>
let events: { involvedObject: { name: string }; message: string }[]
let root: string
let end: AbortController
let wakeup: Wakeup
/** What nft was given, and the next failures of it. */
let written: string[]
let failures: string[]
let isFlushed: boolean
let parts: Map<string, string | undefined>
let warned: string[]

beforeEach(async () => {
  lists = { pods: [], namespaces: [namespace('x')] }
  watches = new Map()
  events = []
  written = []
  failures = []
  isFlushed = false
  parts = new Map()
  warned = []
  end = new AbortController()
  wakeup = new Wakeup()
  root = hostTree({
    ...Object.fromEntries(settings.map((path) => [path, '0\n'])),
    [`${results}/.keep`]: '',
    '/run/k8s/.keep': '',
    '/netns/one': '',
  })
  server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://server')
    if (lists === undefined) return void response.destroy()
    if (request.method === 'POST') {
      let body = ''
      request.on('data', (part: Buffer) => (body += part.toString()))
      return void request.on('end', () => {
        events.push(JSON.parse(body) as (typeof events)[number])
        response.writeHead(201).end('{}')
      })
    }
    if (pathname === '/api/v1/nodes/here')
      return void response.end(JSON.stringify({ spec: { podCIDRs: ['10.244.0.0/24', 'nonsense; flush'] } }))
    const kind = pathname.endsWith('pods') ? 'pods' : 'namespaces'
    if (searchParams.has('watch')) return void watches.set(kind, response)
    response.end(JSON.stringify({ metadata: { resourceVersion: '1' }, items: lists[kind] }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterEach(() => {
  end.abort()
  server.closeAllConnections()
  server.close()
})

function nft(args: readonly string[], _: AbortSignal, input?: string): Promise<string> {
  if (input !== undefined) {
    const failure = failures.shift()
    if (failure !== undefined) return Promise.reject(Object.assign(new Error(failure), { code: failure }))
    isFlushed &&= !input.startsWith('add table')
    written.push(input)
    return Promise.resolve('')
  }
  if (isFlushed) return Promise.resolve('table inet others {\n}\n')
  const [command = ''] = args
  if (command.startsWith('list counters'))
    return Promise.resolve(
      directions
        .flatMap((direction) =>
          ['allowed', 'refused'].map((what) => `counter ${direction}-${what} {\n packets 3 bytes 1 }`),
        )
        .join('\n'),
    )
  const chains = directions
    .map((direction) => `\tchain ${direction} {\n\t\ttype filter hook forward priority 5;\n`)
    .join('')
  return Promise.resolve(
    `table inet k8s-network-policy {\n${chains}\tip saddr vmap @egress-4\tip daddr vmap @ingress-4\n}\n`,
  )
}

function context(): KeeperContext {
  const { port } = server.address() as AddressInfo
  const access = { server: `http://127.0.0.1:${port}`, identity: () => Promise.resolve({}) }
  return {
    access: { ...access, policies: access },
    board: {
      report: ({ name, message }: { name: string; message?: string }) => void parts.set(name, message),
      forget: (name: string) => void parts.delete(name),
    },
    config: { nodeName: 'here', clusterCidr: '10.244.0.0/16' },
    log: {
      info() {},
      debug() {},
      error() {},
      warn: (_: object, text?: string) => void warned.push(text ?? String(_)),
    },
    paths: { policyMark: join(root, 'run/k8s/network-policy') },
  } as unknown as KeeperContext
}

/** A keeper that has been told of a policy, once it has written its rules. */
async function started(spec: Record<string, unknown> = { podSelector: {} }): Promise<PolicyKeeper> {
  const keeper = new PolicyKeeper(context(), { wakeup, signal: end.signal, root, nft })
  keeper.engine.setPolicy(...policyFacts(policy('x', 'p', spec))!)
  while (written.length === 0) {
    await keeper.pass({ isKnown: true, isAway: false })
    if (written.length === 0) await wakeup.wait(undefined, end.signal)
  }
  return keeper
}

function connectionsTold(keeper: PolicyKeeper): number[] {
  const metrics = new Exposition()
  keeper.tell(metrics)
  const counts = metrics.text.matchAll(
    /^k8s_network_policy_connections_total\{direction="(?:in|e)gress",verdict="(?:allowed|refused)"\} (\d+)$/gm,
  )
  return [...counts].map(([, count]) => Number(count))
}

async function tell(kind: 'pods' | 'namespaces', type: string, object: WatchedObject): Promise<void> {
  while (!watches.has(kind)) await new Promise((resolve) => setImmediate(resolve))
  watches.get(kind)!.write(`${JSON.stringify({ type, object })}\n`)
  await wakeup.wait(undefined, end.signal)
}

function record(address: string, name: string): void {
  const path = join(root, results, `k8s-${address}-eth0`)
  mkdirSync(dirname(path), { recursive: true })
  const args = { K8S_POD_NAMESPACE: 'x', K8S_POD_NAME: name, K8S_POD_UID: `x-${name}` }
  writeFileSync(
    path,
    JSON.stringify({
      ...{ netns: '/netns/one', cniArgs: Object.entries(args) },
      result: { ips: [{ address: `${address}/24` }] },
    }),
  )
}

test('all rules are written at first, then what differs, and the kernel is told to ask them', async () => {
  lists!.pods.push(pod('x', 'a', { ips: ['10.244.0.5'] }))
  const keeper = await started()
  expect(written[0]).toMatch(/^add table inet k8s-network-policy\ndelete table/)
  expect(written[0]).toContain('ip daddr 10.244.0.0/24 ip daddr != @known-4 goto unknown')
  expect(written[0]).not.toContain('nonsense')
  expect(existsSync(join(root, 'run/k8s/network-policy'))).toBe(true)
  expect(settings.map((path) => readFileSync(join(root, path), 'utf8'))).toEqual(['1', '1'])
  expect(keeper.summary()).toBe('policies: 1; pods of this node that they select: 1')
  await tell('pods', 'ADDED', pod('x', 'b', { ips: ['10.244.0.6'] }))
  await keeper.pass({ isKnown: true, isAway: false })
  expect(written[1]).toMatch(
    /^add element inet k8s-network-policy ingress-4 \{ 10\.244\.0\.6 : goto ingress-pod-/,
  )
  await keeper.stop()
})

test('what cannot be changed is written anew, and what cannot be written is tried again', async () => {
  const keeper = await started()
  await tell('pods', 'ADDED', pod('x', 'b', { ips: ['10.244.0.6'] }))
  failures.push('no such set')
  await keeper.pass({ isKnown: true, isAway: false })
  expect(written[1]).toMatch(/^add table/)
  expect(warned).toEqual(['rules of network policies could not be changed; all are written anew'])
  await tell('pods', 'DELETED', pod('x', 'b', { ips: ['10.244.0.6'] }))
  failures.push('busy', 'busy')
  await expect(keeper.pass({ isKnown: true, isAway: false })).rejects.toThrow('busy')
  await keeper.pass({ isKnown: true, isAway: false })
  expect(written[2]).toMatch(/^add table/)
  expect(written[2]).not.toContain('10.244.0.6')
})

test('rules that are gone are written again', async () => {
  const keeper = await started()
  const later = (seconds: number) =>
    keeper.pass({ isKnown: true, isAway: false, nowMs: performance.now() + seconds * 1000 })
  await later(6)
  expect(keeper.summary()).toContain('3 let through, 3 refused; from them: 3 and 3')
  await later(12)
  expect(written.length).toBe(1)
  expect(connectionsTold(keeper)).toEqual([3, 3, 3, 3])
  isFlushed = true
  await later(18)
  expect([written.length, warned]).toEqual([
    2,
    ['the rules of network policies were gone, and are there again'],
  ])
  // The kernel counts from nothing again, and the metrics do not.
  expect(connectionsTold(keeper)).toEqual([3, 3, 3, 3])
  for (const seconds of [24, 30, 36, 42, 48, 54, 60]) await later(seconds)
  expect(connectionsTold(keeper)).toEqual([6, 6, 6, 6])
})

test('what the runtime says of a pod counts before the API does, and goes with its network', async () => {
  lists!.pods.push(pod('x', 'a'))
  const keeper = await started()
  record('10.244.0.9', 'a')
  await keeper.pass({ isKnown: true, isAway: false, nowMs: performance.now() + 6000 })
  expect(written.at(-1)).toContain('10.244.0.9 : goto ingress-pod-')
  rmSync(join(root, '/netns/one'))
  await keeper.pass({ isKnown: true, isAway: false, nowMs: performance.now() + 12_000 })
  expect(written.at(-1)).toContain('delete element inet k8s-network-policy ingress-4 { 10.244.0.9 }')
})

test('while the API server is away, pods that nobody knows are let through, until it is back', async () => {
  const keeper = await started()
  record('10.244.0.9', 'new')
  await keeper.pass({ isKnown: true, isAway: true, nowMs: performance.now() + 6000 })
  expect(written.slice(1)).toEqual(['add element inet k8s-network-policy known-4 { 10.244.0.9 }\n'])
  await keeper.pass({ isKnown: true, isAway: true })
  expect(written.length).toBe(2)
  await keeper.pass({ isKnown: true, isAway: false })
  await keeper.pass({ isKnown: true, isAway: false })
  expect(written.at(-1)).toMatch(/^add table/)
  expect(written.at(-1)).not.toContain('10.244.0.9')
})

test('a daemon that starts while the API server is away leaves the rules as they are', async () => {
  lists = undefined
  record('10.244.0.9', 'new')
  const keeper = new PolicyKeeper(context(), { wakeup, signal: end.signal, root, nft })
  await keeper.pass({ isKnown: false, isAway: false })
  expect(written).toEqual([])
  await keeper.pass({ isKnown: false, isAway: true })
  expect(written).toEqual(['add element inet k8s-network-policy known-4 { 10.244.0.9 }\n'])
})

test('without br_netfilter it is said that pods of a node are not kept apart, and the rest is done', async () => {
  rmSync(join(root, '/proc/sys/net/bridge'), { recursive: true })
  await expect(started()).rejects.toThrow('pods of this node are not kept apart: br_netfilter is not loaded')
  // It is tried while nothing is known, too.
  expect(written).toEqual([])
})

test('each problem of a policy has one Event', async () => {
  const keeper = await started({
    podSelector: {},
    ingress: [{ ports: [{ protocol: 'SCTP' }, { port: 77_777 }] }],
  })
  await keeper.pass({ isKnown: true, isAway: false })
  expect(events.map(({ involvedObject, message }) => `${involvedObject.name}: ${message}`)).toEqual([
    'p: a port of it is none, and allows nothing',
    'p: the kernel does not follow SCTP: between two pods, what one port of SCTP is let through is let through at all',
  ])
})

test('where there is no nft, each policy has an Event that says so', async () => {
  failures.push('SPAWN_FAILED')
  await expect(started()).rejects.toThrow('SPAWN_FAILED')
  expect(events.map(({ message }) => message)).toEqual([
    'the node here has no program nft: no policy is enforced there',
  ])
})
