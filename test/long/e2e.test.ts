import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Cluster, defaultDataDir } from '../integration/harness/cluster.ts'
import { Lan } from '../integration/harness/lan.ts'
import { Machine, repository } from '../integration/harness/machine.ts'
import { reportFailures } from '../integration/harness/report.ts'

/*
 * Upstream's own end-to-end suite, on a server and two agents: its conformance cases that want more than one node. What
 * test/long/e2e/build.sh makes is what it runs with. E2E_FOCUS names other cases, four of which run at once.
 */

const directory = `${repository}/build/e2e`
const severalNodes = 'should have at least two untainted nodes|should rollback without unnecessary restarts'
const focus = process.env['E2E_FOCUS']
/** They disturb each other, or the cluster. */
const oneAtATime = String.raw`\[Serial\]|\[Disruptive\]|\[Slow\]`

let lan: Lan
let server: Cluster
let agents: Cluster[]

beforeAll(async () => {
  lan = await Lan.create()
  const machines = await Promise.all(
    ['e2e-one', 'e2e-two', 'e2e-three'].map((name) => Machine.create({ name })),
  )
  const [first, ...others] = machines as [Machine, ...Machine[]]
  const address = await lan.join(first)
  server = new Cluster(first, {})
  agents = others.map((machine) => new Cluster(machine, {}))
  addImages(first)
  server.startDaemon()
  await server.ready()
  const { stdout } = await server.k8s(['token', 'create', '--role=agent'])
  for (const agent of agents) {
    await lan.join(agent.machine)
    addImages(agent.machine)
    writeFileSync(agent.machine.path('/run/token'), stdout)
    agent.startDaemon({ flags: ['agent', `--server=https://${address}:6443`, '--token-file=/run/token'] })
  }
  for (const agent of agents) await agent.ready()
  for (const cluster of [server, ...agents])
    await cluster.waitFor('the images are there', () => hasImages(cluster))
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

function addImages(machine: Machine): void {
  const images = machine.path(`${defaultDataDir}/images`)
  mkdirSync(images, { recursive: true })
  copyFileSync(`${directory}/images.tar`, `${images}/e2e.tar`)
}

async function hasImages(cluster: Cluster): Promise<boolean> {
  return (await cluster.k8s(['crictl', 'images'])).stdout.includes('e2e-test-images/nonewprivs')
}

/** The summary, and the names of what failed. */
async function run(focus: string, { skip, parallel }: { skip: string; parallel: number }) {
  const flags = [
    `-kubeconfig=${defaultDataDir}/admin.kubeconfig`,
    ...['-provider=skeleton', '-disable-log-dump', '-num-nodes=3', '-kubectl-path=/run/bin/kubectl-of-k8s'],
  ]
  const command = [
    ...[`${directory}/ginkgo`, `-procs=${parallel}`, '-no-color', '-silence-skips', '-timeout=55m'],
    ...[`-focus=${focus}`, `-skip=${skip}`, `${directory}/e2e.test`, '--', ...flags],
  ]
  const { stdout, exitCode } = await server.exec(command, { check: false, timeoutMs: 56 * 60_000 })
  writeFileSync(`${directory}/output.log`, stdout)
  const failed = [...stdout.matchAll(/^\s*\[FAIL\] (.*)$/gm)].map(([, name]) => name)
  return {
    exitCode,
    failed: [...new Set(failed)],
    summary: /^Ran \d+ of .*$/m.exec(stdout)?.[0] ?? stdout.slice(-2000),
  }
}

test('the cases that want more than one node pass, or those that E2E_FOCUS names', async () => {
  const { failed, summary, exitCode } =
    focus === undefined
      ? await run(severalNodes, { skip: 'no such case', parallel: 1 })
      : await run(focus, { skip: oneAtATime, parallel: 4 })
  const wanted = expect.stringMatching(focus === undefined ? /^Ran 2 of/ : /^Ran [1-9]/) as string
  expect({ failed, exitCode, summary }).toEqual({ failed: [], exitCode: 0, summary: wanted })
})
