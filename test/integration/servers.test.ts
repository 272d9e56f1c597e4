import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine } from './harness/machine.ts'
import { reportFailures } from './harness/report.ts'

// Three servers with an etcd of their own, three machines on one network.

interface Members {
  readonly members: readonly { readonly name: string; readonly role: string }[]
}

let lan: Lan
let first: Cluster
let second: Cluster
let third: Cluster
let url: string
let token: string

beforeAll(async () => {
  lan = await Lan.create()
  const machines = await Promise.all(['one', 'two', 'three'].map((name) => Machine.create({ name })))
  const addresses: string[] = []
  for (const machine of machines) {
    addresses.push(await lan.join(machine))
    addTestImage(machine)
  }
  url = `https://${addresses[0]}:6443`
  ;[first, second, third] = machines.map(
    (machine) => new Cluster(machine, { flags: ['--server-mode=ha'] }),
  ) as [Cluster, Cluster, Cluster]
  first.startDaemon({ flags: ['--cluster-init'] })
  await first.ready()
})
afterAll(async () => {
  await Promise.all([third, second, first].map((server) => server?.[Symbol.asyncDispose]()))
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => second)

const nameOf = ({ machine }: Cluster) => machine.id.replace('k8s-test-', '')

const membersOf = async (server: Cluster) =>
  (JSON.parse((await server.k8s(['etcd', 'members', '-o', 'json'])).stdout) as Members).members

test('with one token two servers join at once: each has a member that votes, and an API that all know', async () => {
  token = (await first.k8s(['token', 'create', '--role=server'])).stdout.trim()
  for (const server of [second, third]) {
    writeFileSync(server.machine.path('/run/token'), `${token}\n`)
    server.startDaemon({ flags: [`--server=${url}`, '--token-file=/run/token'] })
  }
  await Promise.all([second.ready(), third.ready()])
  const members = await membersOf(third)
  expect(members.map(({ name }) => name).sort()).toEqual([first, second, third].map(nameOf).sort())
  expect(members.map(({ role }) => role).sort()).toEqual(['follower', 'follower', 'leader'])
  for (const server of [first, second, third]) {
    const { stdout } = await server.kubectl(['get', 'nodes', '-o', 'name'])
    expect(stdout.trim().split('\n')).toHaveLength(3)
    await server.waitFor('nothing is told', async () => (await server.status()).problems.length === 0)
  }
  const { endpoints } = await second.get<{ endpoints: object[] }>('endpointslice', 'kubernetes')
  expect(endpoints).toHaveLength(3)
  await second.waitFor('the note "joining" is gone', async () =>
    Promise.resolve(!second.machine.read('/var/lib/k8s/node.json').includes('isJoining')),
  )
})
