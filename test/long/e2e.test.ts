import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Cluster, defaultDataDir } from '../integration/harness/cluster.ts'
import { Lan } from '../integration/harness/lan.ts'
import { Machine, repository } from '../integration/harness/machine.ts'
import { reportFailures } from '../integration/harness/report.ts'
import { type Report, summaryOf } from './e2e/summary.ts'

/*
 * Upstream's own end-to-end suite, on a server and two agents, or on a server alone: its conformance cases that want more than one
 * node, and all of NetworkPolicy. What test/long/e2e/build.sh makes is what it runs with. docs/testing.md has the variables.
 */

const directory = `${repository}/build/e2e`
const severalNodes = 'should have at least two untainted nodes|should rollback without unnecessary restarts'
/** They disturb each other, or the cluster. */
const oneAtATime = String.raw`\[Serial\]|\[Disruptive\]|\[Slow\]`
const noSuchCase = 'no such case'
const names = ['e2e-one', 'e2e-two', 'e2e-three']

const variable = (name: string, otherwise: string) => process.env[`E2E_${name}`] ?? otherwise
const focus = process.env['E2E_FOCUS']
const nodes = Number(variable('NODES', '3'))
const parallel = Number(variable('PARALLEL', '4'))
const minutes = Number(variable('MINUTES', '55'))
const families = variable('FAMILIES', '4')
const proxyMode = `--kube-proxy-mode=${variable('PROXY_MODE', 'auto')}`
const results = variable('RESULTS', directory)
const skip = variable('SKIP', parallel > 1 ? oneAtATime : noSuchCase)

let lan: Lan
let server: Cluster
let agents: Cluster[]

beforeAll(async () => {
  lan = await Lan.create()
  const machines = await Promise.all(names.slice(0, nodes).map((name) => Machine.create({ name })))
  const addresses: string[] = []
  for (const machine of machines) {
    addresses.push(await plug(machine))
    addImages(machine)
  }
  const [first, ...others] = machines as [Machine, ...Machine[]]
  server = new Cluster(first, { flags: [...ranges[families]!, proxyMode, zone(0)] })
  agents = others.map(
    (machine, place) => new Cluster(machine, { flags: ['agent', proxyMode, zone(place + 1)] }),
  )
  server.startDaemon()
  await server.ready()
  const { stdout } = await server.k8s(['token', 'create', '--role=agent'])
  for (const agent of agents) {
    writeFileSync(agent.machine.path('/run/token'), stdout)
    agent.startDaemon({ flags: [`--server=https://${addresses[0]}:6443`, '--token-file=/run/token'] })
  }
  for (const agent of agents) await agent.ready()
  for (const cluster of [server, ...agents])
    await cluster.waitFor('the images are there', () => hasImages(cluster), { timeoutMs: 120_000 })
  // Otherwise whatever kubectl the machine has would be tried.
  await server.exec([
    'sh',
    '-c',
    'printf \'#!/bin/sh\\nexec k8s kubectl "$@"\\n\' >/run/bin/kubectl-of-k8s && chmod +x /run/bin/kubectl-of-k8s',
  ])
}, 600_000)
afterAll(async () => {
  for (const agent of agents ?? []) await agent[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => server)

/** By the families that are asked for; the first one is the cluster's. */
const four = ['10.244.0.0/16', '10.96.0.0/12']
const six = ['fd00:244::/48', 'fd00:96::/112']
const rangesOf = (...both: readonly string[][]) =>
  ['cluster', 'service'].map((of, place) => `--${of}-cidr=${both.map((range) => range[place]).join()}`)
const ranges: Readonly<Record<string, readonly string[]>> = {
  4: rangesOf(four),
  6: rangesOf(six),
  46: rangesOf(four, six),
}

/** Gives a machine its addresses, and returns that by which it is reached. */
async function plug(machine: Machine): Promise<string> {
  const address = await lan.join(machine)
  if (families === '4') return address
  const addressSix = await lan.joinSix(machine)
  if (families === '46') return address
  await machine.exec(['ip', '-4', 'address', 'flush', 'dev', 'eth0'])
  return `[${addressSix}]`
}

/** Cases on the distribution of traffic want three. */
function zone(place: number): string {
  return `--node-label=topology.kubernetes.io/zone=zone-${place}`
}

function addImages(machine: Machine): void {
  const images = machine.path(`${defaultDataDir}/images`)
  mkdirSync(images, { recursive: true })
  copyFileSync(`${directory}/images.tar`, `${images}/e2e.tar`)
}

async function hasImages(cluster: Cluster): Promise<boolean> {
  return (await cluster.k8s(['crictl', 'images'])).stdout.includes('e2e-test-images/nonewprivs')
}

/** What was run, how it went, and why what was skipped was. */
async function run(focused: string, { skipped, atOnce }: { skipped: string; atOnce: number }) {
  const flags = [
    `-kubeconfig=${defaultDataDir}/admin.kubeconfig`,
    ...['-provider=skeleton', '-disable-log-dump', `-num-nodes=${nodes}`],
    '-kubectl-path=/run/bin/kubectl-of-k8s',
  ]
  const report = `${results}/report.json`
  mkdirSync(results, { recursive: true })
  rmSync(report, { force: true })
  const command = [
    ...[`${directory}/ginkgo`, `-procs=${atOnce}`, '-no-color', '-silence-skips', `-timeout=${minutes}m`],
    ...[`-output-dir=${results}`, '-json-report=report.json'],
    ...[`-focus=${focused}`, `-skip=${skipped}`, `${directory}/e2e.test`, '--', ...flags],
  ]
  const { stdout, stderr, exitCode } = await server.exec(command, {
    check: false,
    timeoutMs: (minutes + 1) * 60_000,
  })
  writeFileSync(`${results}/output.log`, stdout + stderr)
  const summary = summaryOf(JSON.parse(readFileSync(report, 'utf8')) as Report)
  console.info(`${focused}, on ${nodes} node(s)\n${summary.text}`)
  return { exitCode, failed: summary.failed, ran: summary.ran }
}

test.runIf(focus === undefined && nodes > 1)('the cases that want more than one node pass', async () => {
  const result = await run(severalNodes, { skipped: noSuchCase, atOnce: 1 })
  expect(result).toEqual({ failed: [], exitCode: 0, ran: 2 })
})

test.runIf(focus === undefined)('the cases of NetworkPolicy pass', async () => {
  const { ran, ...result } = await run('Netpol', {
    skipped: String.raw`\[Feature:SCTPConnectivity\]`,
    atOnce: 4,
  })
  expect(result).toEqual({ failed: [], exitCode: 0 })
  expect(ran).toBeGreaterThan(40)
})

test.runIf(focus !== undefined)('the cases that E2E_FOCUS names pass', async () => {
  const { ran, ...result } = await run(focus!, { skipped: skip, atOnce: parallel })
  expect(result).toEqual({ failed: [], exitCode: 0 })
  expect(ran).toBeGreaterThan(0)
})
