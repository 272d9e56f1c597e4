import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { nodesWithFigures } from './harness/figures.ts'
import { Lan } from './harness/lan.ts'
import { Machine } from './harness/machine.ts'
import { pod, sleepForever } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

// A server and an agent, two machines on one network.

let lan: Lan
let server: Cluster
let agent: Cluster
let serverUrl: string
let token: string

beforeAll(async () => {
  lan = await Lan.create()
  const [first, second] = await Promise.all(['server', 'agent'].map((name) => Machine.create({ name })))
  const address = await lan.join(first!)
  await lan.join(second!)
  for (const machine of [first!, second!]) addTestImage(machine)
  server = new Cluster(first!, {})
  agent = new Cluster(second!, {})
  serverUrl = `https://${address}:6443`
  server.startDaemon()
  await server.ready()
  token = (await server.k8s(['token', 'create', '--role=agent'])).stdout.trim()
  writeFileSync(second!.path('/run/token'), `${token}\n`)
})
afterAll(async () => {
  await agent?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => agent)

const nodeName = () => agent.machine.hostName

test('with a token a machine becomes a Node that is Ready, and has neither keys of the cluster nor the token after that', async () => {
  agent.startDaemon({ flags: ['agent', `--server=${serverUrl}`, '--token-file=/run/token'] })
  await agent.ready()
  const status = await agent.status()
  expect(status).toMatchObject({ role: 'agent', state: 'ready', problems: [], nodeName: nodeName() })
  expect(status.components.map(({ name }) => name)).toEqual([
    ...['api-balancer', 'containerd', 'kubelet', 'kube-proxy'],
  ])
  expect((await agent.k8s(['status'])).stdout).toContain(`Node ${nodeName()} is Ready; the agent is ready.`)
  await agent.waitFor('the token is gone', async () => {
    const { exitCode } = await agent.exec(
      ['sh', '-c', `cd /var/lib/k8s && grep -rq ${token.slice(-16)} kubeconfig etc pki *.json`],
      { check: false },
    )
    return exitCode === 1
  })
  expect(readdirSync(agent.machine.path('/var/lib/k8s/pki')).filter((name) => name.endsWith('.key'))).toEqual(
    [],
  )
  expect(agent.machine.read('/var/lib/k8s/node.json')).not.toContain('isJoining')
  expect(agent.machine.read(`/proc/${agent.daemon.pid}/cmdline`)).not.toContain(token)
})

test('its pods run, and their logs and shells are reached from the server', async () => {
  await server.runPods(
    pod('remote', `echo hello; ${sleepForever}`, { spec: { nodeName: nodeName(), hostNetwork: true } }),
  )
  expect((await server.kubectl(['logs', 'remote'])).stdout).toBe('hello\n')
  expect(await server.shell('remote', 'hostname')).toBe(`${nodeName()}\n`)
})

test('what it uses is told by kubectl top, as of the server', async () => {
  expect(await nodesWithFigures(server, 2)).toHaveLength(2)
})

test('killed and started again without token and server, it goes on, and its pods have not noticed', async () => {
  const before = await server.pod('remote')
  await agent.daemon.stop('SIGKILL')
  agent.startDaemon({ flags: ['agent'] })
  await agent.ready()
  const [status] = (await server.pod('remote')).status.containerStatuses ?? []
  expect(status).toMatchObject({
    containerID: before.status.containerStatuses?.[0]?.containerID,
    restartCount: 0,
  })
})

test('a server that stops is shown and waited for, by an agent that starts meanwhile, too', async () => {
  const pid = agent.daemon.pid
  await server.k8s(['stop'])
  await server.daemon.ended
  const isAwayShown = async () => {
    const { stdout } = await agent.k8s(['status'], { check: false })
    return stdout.includes(`api-balancer: ${serverUrl} is away: connect ECONNREFUSED`)
  }
  await agent.waitFor('the server is missed', isAwayShown)
  expect(agent.daemon.pid).toBe(pid)
  await agent.k8s(['stop'])
  await agent.daemon.ended
  // As systemd starts it: what it is, is on the disk.
  agent.startDaemon()
  await agent.waitFor('the server is missed again', isAwayShown)
  server.startDaemon()
  await server.ready()
  await agent.ready()
  expect((await server.pod('remote')).status.containerStatuses?.[0]).toMatchObject({ restartCount: 0 })
  expect(await server.shell('remote', 'hostname')).toBe(`${nodeName()}\n`)
})

test('a server that is cut off leaves its connections half open: they are ended when it is back, and the kubelet reports at once', async () => {
  await lan.cut(server.machine)
  await agent.waitFor('the server is missed', async () => {
    const { problems } = await agent.status()
    return problems.some((problem) => problem.includes(`${serverUrl} is away: cannot GET`))
  })
  const renewed = await renewTime()
  await lan.heal(server.machine)
  await server.waitFor('the kubelet reports again', async () => (await renewTime()) !== renewed)
  await agent.ready()
  expect((await server.kubectl(['logs', 'remote'])).stdout).toBe('hello\n')
})

test.each<[string, () => readonly string[], string]>([
  [
    'the name of another Node',
    () => [`--token=${token}`, `--node-name=${server.machine.hostName}`],
    'has a Node server-',
  ],
  [
    'the hash of another cluster',
    () => [`--token=${token.replace(/-[0-9a-f]{64}-/, `-${'0'.repeat(64)}-`)}`],
    `and the token is for sha256:${'0'.repeat(64)}`,
  ],
])('%s is refused with one line, and nothing is written', async (_, flags, message) => {
  const { exitCode, stderr } = await agent.exec(
    [
      'k8s',
      'agent',
      '--data-dir=/run/other',
      '--v=0',
      '--node-name=other',
      `--server=${serverUrl}`,
      ...flags(),
    ],
    { check: false },
  )
  expect(stderr).toContain(message)
  expect(stderr.split('\n').filter((line) => line.startsWith('k8s: cannot'))).toHaveLength(1)
  expect(exitCode).toBe(2)
  const left = readdirSync(agent.machine.path('/run/other'))
  expect(left).not.toContain('node.json')
  expect(left).not.toContain('pki')
})

test('what a machine is, it stays: a server is no agent, nor an agent a server', async () => {
  const asServer = await agent.k8s(['server'], { check: false })
  expect(asServer).toMatchObject({
    exitCode: 2,
    stderr: expect.stringContaining('it is the data directory of an agent'),
  })
  const asAgent = await server.k8s(['agent', `--server=${serverUrl}`, '--token-file=/run/token'], {
    check: false,
  })
  expect(asAgent).toMatchObject({
    exitCode: 2,
    stderr: expect.stringContaining('it is the data directory of a server'),
  })
})

test('stopped with its pods and reset, nothing of it is left, and its name can join again', async () => {
  await server.kubectl(['delete', 'pod', 'remote'])
  await server.kubectl(['drain', nodeName(), '--ignore-daemonsets', '--delete-emptydir-data'])
  await agent.k8s(['stop', '--pods'])
  await agent.daemon.ended
  const { stdout } = await agent.k8s(['reset', '--force'])
  expect(stdout).toContain(`k8s node remove ${nodeName()}`)
  const mounts = agent.machine.read('/proc/1/mountinfo')
  expect(mounts).not.toMatch(/ \/var\/lib\/(k8s|kubelet)/)
  expect((await agent.exec(['nft', 'list', 'tables'])).stdout).not.toMatch(/kube|cni|k8s/i)
  expect((await agent.exec(['ip', '-br', 'link'])).stdout).not.toMatch(/cni|veth[0-9a-f]{8}/)
  for (const path of ['/var/lib/k8s', '/var/lib/kubelet', '/var/log/pods', '/run/containerd'])
    expect((await agent.exec(['test', '-e', path], { check: false })).exitCode, path).toBe(1)
  await server.kubectl(['delete', 'node', nodeName()])
  addTestImage(agent.machine)
  mkdirSync(agent.machine.path('/etc/k8s'), { recursive: true })
  writeFileSync(
    agent.machine.path('/etc/k8s/config.yaml'),
    `role: agent\nserver: [${serverUrl}]\ntoken-file: /run/token\n`,
  )
  agent.startDaemon()
  await agent.ready()
})

/** When the kubelet has said last that it lives. */
async function renewTime(): Promise<string | undefined> {
  const lease = await server.get<{ spec: { renewTime?: string } }>(
    '-n',
    'kube-node-lease',
    'lease',
    nodeName(),
  )
  return lease.spec.renewTime
}
