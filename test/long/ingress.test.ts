import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster, defaultDataDir } from '../integration/harness/cluster.ts'
import { Lan } from '../integration/harness/lan.ts'
import { Machine, repository } from '../integration/harness/machine.ts'
import { busybox } from '../integration/harness/manifests.ts'
import { reportFailures } from '../integration/harness/report.ts'

/*
 * The manifests of docs/ingress.md as they stand there, on a server and an agent, with the image that `make ingress-image` makes; and a machine
 * that is in no cluster, which asks.
 */

const host = 'hello.example'
/** What docs/ingress-example.yaml has pods of. */
const exampleImage = 'docker.io/library/busybox:1.37'
/** Until a machine that is silent is no endpoint any more. */
const lossMs = 150_000

let lan: Lan
let server: Cluster
let agent: Cluster
let client: Machine
let clientAddress: string
let addresses: Record<'server' | 'agent', string>

beforeAll(async () => {
  lan = await Lan.create()
  const names = ['ingress-server', 'ingress-agent', 'ingress-client']
  const machines = await Promise.all(names.map((name) => Machine.create({ name })))
  const [first, second, third] = machines as [Machine, Machine, Machine]
  const joined: string[] = []
  for (const machine of machines) joined.push(await lan.join(machine))
  const [ofServer = '', ofAgent = '', ofClient = ''] = joined
  addresses = { server: ofServer, agent: ofAgent }
  client = third
  clientAddress = ofClient
  server = new Cluster(first, {})
  agent = new Cluster(second, { flags: ['agent'] })
  for (const machine of [first, second]) {
    addTestImage(machine)
    copyFileSync(
      `${repository}/build/images/traefik.tar.zst`,
      machine.path(`${defaultDataDir}/images/traefik.tar.zst`),
    )
  }
  server.startDaemon()
  await server.ready()
  const { stdout } = await server.k8s(['token', 'create', '--role=agent'])
  writeFileSync(second.path('/run/token'), stdout)
  agent.startDaemon({ flags: [`--server=https://${ofServer}:6443`, '--token-file=/run/token'] })
  await agent.ready()
  for (const node of [server, agent])
    await node.waitFor('the image of the example is there', async () => {
      const tag = ['ctr', 'images', 'tag', '--force', busybox, exampleImage]
      return (await node.k8s(tag, { check: false })).exitCode === 0
    })
})
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await client?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => server)

const document = (name: string) => readFileSync(`${repository}/docs/${name}`, 'utf8')

async function applyDocument(name: string): Promise<void> {
  await server.kubectl(['apply', '-f', '-'], { stdin: document(name) })
}

/** The status and the text of an answer; nothing where there is none. */
async function asked(url: string, address: string, more: readonly string[] = []): Promise<string> {
  const { protocol, hostname } = new URL(url)
  const resolve = `${hostname}:${protocol === 'https:' ? 443 : 80}:${address}`
  const command = ['curl', '-s', '-m', '5', '-w', '%{http_code}', '--resolve', resolve, ...more, url]
  const { exitCode, stdout } = await client.exec(command, { check: false })
  return exitCode === 0 ? stdout : ''
}

function untilAsked(url: string, address: string, answer: RegExp, more?: readonly string[]): Promise<string> {
  return server.waitFor(`${url} at ${address} is ${String(answer)}`, async () => {
    const found = await asked(url, address, more)
    return answer.test(found) && found
  })
}

const answerOf = (app: string, url: string) =>
  new RegExp(`^${app}: ${app}-\\S+ was asked for ${url} by ${clientAddress}\n200$`)

interface Addressed {
  readonly status: { readonly loadBalancer: { readonly ingress?: { ip: string }[] } }
}

async function addressesOf(...what: string[]): Promise<string[]> {
  const { status } = await server.get<Addressed>(...what)
  return (status.loadBalancer.ingress ?? []).map(({ ip }) => ip).toSorted()
}

function untilAddresses(expected: readonly string[], timeoutMs = 60_000): Promise<boolean> {
  const wanted = expected.toSorted().join()
  return server.waitFor(
    `the ingress has the addresses ${wanted}`,
    async () =>
      (await addressesOf('-n', 'traefik', 'service', 'traefik')).join() === wanted &&
      (await addressesOf('ingress', 'example')).join() === wanted,
    { timeoutMs },
  )
}

test('Ingresses have the addresses of the nodes, and lead by host and path; pods are told who asks', async () => {
  await applyDocument('ingress.yaml')
  await server.kubectl(['-n', 'traefik', 'rollout', 'status', 'daemonset/traefik', '--timeout=120s'], {
    timeoutMs: 130_000,
  })
  await applyDocument('ingress-example.yaml')
  await server.wait(['--for=condition=Available', 'deployment/hello', 'deployment/shop'])
  await untilAddresses(Object.values(addresses))
  for (const address of Object.values(addresses)) {
    const url = `http://${host}`
    await untilAsked(`${url}/`, address, answerOf('hello', `${url}/`))
    await untilAsked(`${url}/shop/`, address, answerOf('shop', `${url}/shop/`))
    expect(await asked(`${url}/shopping/`, address)).toMatch(answerOf('hello', `${url}/shopping/`))
    expect(await asked('http://other.example/', address)).toMatch(/404$/)
    // Who asks is not what a client says.
    const liar = ['-H', 'X-Forwarded-For: 192.0.2.1']
    expect(await asked(`${url}/`, address, liar)).toMatch(answerOf('hello', `${url}/`))
  }
  await server.kubectl(['scale', 'deployment', 'shop', '--replicas=0'])
  expect(await untilAsked(`http://${host}/shop/`, addresses.server, /503$/)).toBeTruthy()
})

test('TLS by the certificate of a Secret, and by another one that takes its place', async () => {
  const secret = async () => {
    await server.exec([
      ...['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-days', '365', '-subj', `/CN=${host}`, '-addext', `subjectAltName=DNS:${host}`],
      ...['-keyout', '/run/tls.key', '-out', '/run/tls.crt'],
    ])
    const create = [
      ...['create', 'secret', 'tls', 'hello-tls', '--cert=/run/tls.crt', '--key=/run/tls.key'],
      ...['--dry-run=client', '-o', 'yaml'],
    ]
    const { stdout } = await server.kubectl(create)
    await server.kubectl(['apply', '-f', '-'], { stdin: stdout })
    writeFileSync(client.path('/run/tls.crt'), server.machine.read('/run/tls.crt'))
  }
  const url = `https://${host}/`
  const trusted = ['--cacert', '/run/tls.crt']
  await secret()
  const patch = JSON.stringify({ spec: { tls: [{ hosts: [host], secretName: 'hello-tls' }] } })
  await server.kubectl(['patch', 'ingress', 'example', '-p', patch])
  for (const address of Object.values(addresses))
    await untilAsked(url, address, answerOf('hello', url), trusted)
  expect(await asked(`http://${host}/`, addresses.server)).toMatch(answerOf('hello', `http://${host}/`))
  await secret()
  for (const address of Object.values(addresses))
    expect(await untilAsked(url, address, answerOf('hello', url), trusted)).toBeTruthy()
})

test('it is made anew without a request that is not answered', async () => {
  const url = `https://${host}/`
  const failed: string[] = []
  let answered = 0
  let ended = false
  const asking = Promise.all(
    Object.values(addresses).map(async (address) => {
      while (!ended) {
        const answer = await asked(url, address, ['--cacert', '/run/tls.crt'])
        if (answerOf('hello', url).test(answer)) answered++
        else failed.push(`${new Date().toISOString()} ${address}: ${answer}`)
      }
    }),
  )
  try {
    await server.kubectl(['-n', 'traefik', 'rollout', 'restart', 'daemonset/traefik'])
    await server.kubectl(['-n', 'traefik', 'rollout', 'status', 'daemonset/traefik', '--timeout=180s'], {
      timeoutMs: 190_000,
    })
  } finally {
    ended = true
    await asking
  }
  expect(failed).toEqual([])
  expect(answered).toBeGreaterThan(0)
})

test('a node that is lost is no address of it, and the other one answers', async () => {
  const url = `https://${host}/`
  await lan.cut(agent.machine)
  await untilAddresses([addresses.server], lossMs)
  await untilAsked(url, addresses.server, answerOf('hello', url), ['--cacert', '/run/tls.crt'])
  await lan.heal(agent.machine)
  await untilAddresses(Object.values(addresses), lossMs)
  const trusted = ['--cacert', '/run/tls.crt']
  expect(await untilAsked(url, addresses.agent, answerOf('hello', url), trusted)).toBeTruthy()
})
