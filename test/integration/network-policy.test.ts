import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine, repository } from './harness/machine.ts'
import { pod, sleepForever, webServer } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

/*
 * A server and an agent, with pods of the namespace default on both (`near` and `far` serve, `ask-near` and `ask-far` ask), and one
 * of the namespace `other` on the server, `guest`.
 */

const busybox = `${repository}/build/bin/busybox`
const metricsAddress = '127.0.0.1:9101'
const policyTable = ['nft', 'list', 'table', 'inet', 'k8s-network-policy']

let lan: Lan
let server: Cluster
let agent: Cluster
let addresses: Record<string, string>

beforeAll(async () => {
  lan = await Lan.create()
  const machines = await Promise.all(
    ['policy-server', 'policy-agent'].map((name) => Machine.create({ name })),
  )
  const [first, second] = machines as [Machine, Machine]
  server = new Cluster(first, {
    flags: [
      ...['--cluster-cidr=10.244.0.0/16,fd00:244::/48', '--service-cidr=10.96.0.0/12,fd00:96::/112'],
      ...['--kube-proxy-mode=iptables', `--metrics-address=${metricsAddress}`],
    ],
  })
  agent = new Cluster(second, {})
  const [serverAddress] = [await lan.join(first), await lan.join(second)]
  for (const machine of machines) await lan.joinSix(machine)
  for (const machine of machines) addTestImage(machine)
  server.startDaemon()
  await server.ready()
  const { stdout } = await server.k8s(['token', 'create', '--role=agent'])
  writeFileSync(second.path('/run/token'), stdout)
  agent.startDaemon({ flags: ['agent', `--server=https://${serverAddress}:6443`, '--token-file=/run/token'] })
  await agent.ready()
  await server.apply({
    ...{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'other', labels: { team: 'guests' } } },
  })
  for (const namespace of ['default', 'other'])
    await server.waitFor('pods are admitted', () => server.get('serviceaccount', 'default', '-n', namespace))
  const on = (machine: Machine, app: string) => ({
    labels: { app },
    spec: { nodeName: machine.hostName },
    container: { ports: [{ name: 'http', containerPort: 8080 }] },
  })
  const guest = pod('guest', sleepForever, on(first, 'guest'))
  await server.apply({ ...guest, metadata: { ...guest.metadata, namespace: 'other' } })
  await server.runPods(
    pod('near', webServer, on(first, 'web')),
    pod('far', webServer, on(second, 'web')),
    pod('ask-near', sleepForever, on(first, 'ask')),
    pod('ask-far', sleepForever, on(second, 'ask')),
  )
  await server.wait(['-n', 'other', '--for=condition=Ready', 'pod/guest'])
  await server.apply(
    webService('near', { 'statefulset.kubernetes.io/pod-name': 'near' }),
    webService('web', { app: 'web' }),
  )
  await server.kubectl(['label', 'pod', 'near', 'statefulset.kubernetes.io/pod-name=near'])
  addresses = {}
  for (const name of ['near', 'far', 'ask-near', 'ask-far']) {
    const { status } = (await server.pod(name)) as unknown as { status: { podIPs: { ip: string }[] } }
    for (const { ip } of status.podIPs) addresses[ip.includes(':') ? `${name} by IPv6` : name] = ip
  }
})
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => agent)

function webService(name: string, selector: Record<string, string>) {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name },
    spec: { selector, ports: [{ port: 80, targetPort: 8080 }] },
  }
}

function policy(name: string, spec: object, namespace = 'default') {
  return { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name, namespace }, spec }
}

const web = { matchLabels: { app: 'web' } }
const fromAskers = { from: [{ podSelector: { matchLabels: { app: 'ask' } } }] }

/** What one pod gets of another, or of a Service: its name, or nothing. */
async function fetched(from: string, to: string): Promise<string> {
  const address = addresses[to]
  const host = address?.includes(':') === true ? `[${address}]` : address
  const url = `http://${host === undefined ? to : `${host}:8080`}/`
  const own = from === 'guest' ? ['-n', 'other'] : []
  const line = `timeout 2 wget -q -O - ${url} 2>/dev/null || true`
  return (await server.kubectl(['exec', ...own, from, '--', 'sh', '-c', line])).stdout.trim()
}

/** "from to" of those that get an answer. */
async function answered(...asked: (readonly [from: string, to: string])[]): Promise<string[]> {
  const results = await Promise.all(
    asked.map(async ([from, to]) => ({ from, to, text: await fetched(from, to) })),
  )
  return results.filter(({ text }) => text !== '').map(({ from, to }) => `${from} ${to}`)
}

const askers = ['ask-near', 'ask-far', 'guest'] as const
const everyAsk = askers.flatMap((from) => (['near', 'far'] as const).map((to) => [from, to] as const))
const everyAnswer = everyAsk.map((ask) => ask.join(' '))

function untilAnswered(expected: readonly string[]): Promise<boolean> {
  return server.waitFor(
    `exactly these get answers: ${expected.join()}`,
    async () => JSON.stringify(await answered(...everyAsk)) === JSON.stringify(expected),
  )
}

/** Whether a pod reaches another on its node by the address that the kernel has given that. */
async function reachesLinkLocal(): Promise<boolean> {
  const lines = (await server.shell('near', 'cat /proc/net/if_inet6')).split('\n')
  const line = lines.find((one) => one.startsWith('fe80') && one.endsWith('eth0')) ?? ''
  const address = line.slice(0, 32).replace(/(.{4})(?=.)/g, '$1:')
  const ask = `timeout 2 nc ${address}%eth0 8080 </dev/null >/dev/null 2>&1 && echo open || echo closed`
  return (await server.shell('ask-near', ask)) === 'open\n'
}

async function rules({ machine }: Cluster): Promise<string> {
  return (await machine.exec(policyTable, { check: false })).stdout
}

async function part({ status }: { status: Cluster['status'] }) {
  return (await status()).parts.find(({ name }) => name === 'network-policy')
}

test('without a policy there is nothing in the kernel, and everybody is answered', async () => {
  for (const cluster of [server, agent]) {
    expect(await rules(cluster)).toBe('')
    expect(await part({ status: () => cluster.status() })).toEqual({
      ...{ name: 'network-policy', state: 'ready', message: 'there are no policies' },
    })
  }
  await untilAnswered(everyAnswer)
  expect(await reachesLinkLocal()).toBe(true)
})

test('a policy without rules keeps everybody out but the node itself, on every node', async () => {
  await server.apply(policy('web', { podSelector: web }))
  await untilAnswered([])
  const ask = ({ machine }: Cluster, address = '') =>
    machine.exec(['timeout', '5', busybox, 'wget', '-q', '-O', '-', `http://${address}:8080/`], {
      check: false,
    })
  expect((await ask(server, addresses['near'])).stdout).toBe('near\n')
  expect((await ask(agent, addresses['far'])).stdout).toBe('far\n')
  expect((await ask(server, addresses['far'])).stdout).toBe('')
})

test('what else leads there is closed, too: Services, and addresses that pods give themselves', async () => {
  expect(await answered(['ask-near', 'web'], ['ask-far', 'web'])).toEqual([])
  expect(await reachesLinkLocal()).toBe(false)
  // A pod reaches itself by its own Service.
  await server.waitFor(
    'the Service leads to its pod',
    async () => (await fetched('near', 'near.default')) === 'near',
  )
})

test('rules let through those that they name, by labels of pods and of namespaces, wherever they run', async () => {
  await server.apply(
    policy('askers', { podSelector: web, ingress: [{ ...fromAskers, ports: [{ port: 'http' }] }] }),
  )
  await untilAnswered(everyAnswer.filter((text) => !text.startsWith('guest')))
  expect((await answered(['ask-near', 'web'], ['ask-far', 'web'])).length).toBe(2)
  await server.apply(
    policy('guests', {
      podSelector: web,
      ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'guests' } } }] }],
    }),
  )
  await untilAnswered(everyAnswer)
  await server.kubectl(['label', '--overwrite', 'namespace', 'other', 'team=strangers'])
  await untilAnswered(everyAnswer.filter((text) => !text.startsWith('guest')))
  await server.kubectl(['label', '--overwrite', 'pod', 'ask-far', 'app=other'])
  await untilAnswered(everyAnswer.filter((text) => text.startsWith('ask-near')))
  await server.kubectl(['label', '--overwrite', 'pod', 'ask-far', 'app=ask'])
  await untilAnswered(everyAnswer.filter((text) => !text.startsWith('guest')))
})

test('the same holds for addresses of IPv6', async () => {
  const asked = askers.flatMap((from) => ['near', 'far'].map((to) => [from, `${to} by IPv6`] as const))
  const expected = asked.map((ask) => ask.join(' ')).filter((text) => !text.startsWith('guest'))
  expect(await answered(...asked)).toEqual(expected)
})

test('what leaves a pod is held to its rules, by the addresses behind Services', async () => {
  await server.apply(
    policy('out', {
      podSelector: { matchLabels: { app: 'ask' } },
      policyTypes: ['Egress'],
      egress: [{ to: [{ ipBlock: { cidr: `${addresses['near']}/32` } }], ports: [{ port: 8080 }] }],
    }),
  )
  expect(await untilAnswered(['ask-near near', 'ask-far near'])).toBe(true)
  await server.kubectl(['delete', 'networkpolicy', 'out'])
  await untilAnswered(everyAnswer.filter((text) => !text.startsWith('guest')))
})

test('a new pod of a namespace that is closed has no moment in which it is open', async () => {
  await server.apply(policy('closed', { podSelector: {}, policyTypes: ['Egress'] }, 'other'))
  const ask = `timeout 1 nc ${addresses['near']} 8080 </dev/null >/dev/null 2>&1 && echo open`
  const line = `{ for i in 1 2 3 4 5 6; do ${ask}; done; } 2>/dev/null; echo done; ${sleepForever}`
  const escaping = ['escape-1', 'escape-2', 'escape-3'].map((name) =>
    pod(name, line, { labels: { app: 'escape' } }),
  )
  await server.apply(
    policy('all', { podSelector: web, ingress: [{}] }),
    ...escaping.map((one) => ({ ...one, metadata: { ...one.metadata, namespace: 'other' } })),
  )
  for (const { metadata } of escaping) {
    const log = await server.waitFor('it has tried', async () => {
      const { stdout } = await server.kubectl(['logs', '-n', 'other', metadata.name], { check: false })
      return stdout.includes('done') && stdout
    })
    expect(log).toBe('done\n')
  }
  await server.kubectl(['delete', '-n', 'other', 'networkpolicy', 'closed'])
  await server.kubectl(['delete', 'networkpolicy', 'all'])
})

describe('rules that somebody takes away are there again', () => {
  test.each<[string, string[]]>([
    ['with all others', ['nft', 'flush', 'ruleset']],
    [
      'by the setting that has them asked between pods of a node',
      ['sh', '-c', 'echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables'],
    ],
  ])('%s', async (_, command) => {
    await server.exec(command)
    expect(await untilAnswered(everyAnswer.filter((text) => !text.startsWith('guest')))).toBe(true)
  })
})

test('the status and the metrics count what was let through and refused', async () => {
  const found = await server.waitFor('it has counted', async () => {
    const now = await part({ status: () => server.status() })
    return /from them/.test(now?.message ?? '') && now
  })
  expect(found.state).toBe('ready')
  expect(found.message).toMatch(/^policies: 3; pods of this node that they select: 1; connections to them/)
  const { stdout } = await server.exec([busybox, 'wget', '-q', '-O', '-', `http://${metricsAddress}/metrics`])
  expect(stdout).toMatch(/^k8s_network_policy_policies 3$/m)
  expect(stdout).toMatch(/^k8s_network_policy_selected_pods 1$/m)
  for (const verdict of ['allowed', 'refused'])
    expect(stdout).toMatch(
      new RegExp(
        `^k8s_network_policy_connections_total{direction="ingress",verdict="${verdict}"} [1-9]`,
        'm',
      ),
    )
})

test('a restart of the daemon opens nothing', async () => {
  const watching = server.kubectlStart([
    'exec',
    '-n',
    'other',
    'guest',
    '--',
    'sh',
    '-c',
    `while :; do timeout 1 nc ${addresses['far']} 8080 </dev/null && echo open; done`,
  ])
  await using _watching = watching
  let heard = ''
  watching.child.stdout?.on('data', (chunk: Buffer) => (heard += chunk.toString()))
  await agent.k8s(['stop'])
  await agent.daemon.ended
  expect(await rules(agent)).toContain('map ingress-4')
  expect(await answered(['guest', 'far'], ['ask-near', 'far'])).toEqual(['ask-near far'])
  agent.startDaemon({ flags: ['agent'] })
  await agent.ready()
  await agent.waitFor('the rules are looked after', async () =>
    (await part({ status: () => agent.status() }))?.message?.startsWith('policies: 3'),
  )
  expect(await answered(['guest', 'far'], ['ask-near', 'far'])).toEqual(['ask-near far'])
  expect(heard).toBe('')
})

test('a policy that says what nobody knows has an Event that says so', async () => {
  const peers = Array.from({ length: 2_100 }, (_, index) => ({
    podSelector: { matchLabels: { number: `${index}` } },
  }))
  await server.apply(policy('large', { podSelector: web, ingress: [{ from: peers }] }))
  const message = await server.waitFor('there is an Event', async () => {
    const { items } = await server.get<{
      items: { reason: string; message: string; involvedObject: { name: string } }[]
    }>('events')
    return items.find(
      ({ reason, involvedObject }) => reason === 'NotEnforced' && involvedObject.name === 'large',
    )?.message
  })
  expect(message).toBe('it has more than 2000 peers and ports; what those beyond would allow is refused')
  await server.kubectl(['delete', 'networkpolicy', 'large'])
})

test('a node that leaves it out has no rules', async () => {
  await agent.k8s(['stop'])
  await agent.daemon.ended
  agent.startDaemon({ flags: ['agent', '--disable=network-policy'] })
  await agent.ready()
  await agent.waitFor('the rules are gone', async () => (await rules(agent)) === '')
  expect(await answered(['guest', 'far'])).toEqual(['guest far'])
  expect(await part({ status: () => agent.status() })).toBeUndefined()
})

test('reset takes the rules away', async () => {
  await server.k8s(['stop', '--pods'])
  await server.daemon.ended
  expect(await rules(server)).toContain('map ingress-4')
  await server.k8s(['reset', '--force'])
  expect(await rules(server)).toBe('')
})
