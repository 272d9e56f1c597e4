import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { expect, test } from 'vitest'
import { addTestImage, Cluster, payloadsOf } from '../integration/harness/cluster.ts'
import { Lan } from '../integration/harness/lan.ts'
import { artifact, Machine, repository } from '../integration/harness/machine.ts'
import { deployment, service, webServer } from '../integration/harness/manifests.ts'
import { startTraffic, startTrafficOn } from '../integration/harness/traffic.ts'
import { findProblems } from '../soak/check.ts'

/*
 * docs/upgrade.md: a cluster of the minor version before the default one, made by the same sources (scripts/other-artifact.sh), becomes one of
 * this version, machine by machine, while its pods answer and a client writes.
 */

const before = 'v1.36.4'
const now = 'v1.37.1'
const artifactBefore = `${repository}/build/versions/${before}/k8s`

/** Machines on a network with the artifact before; the first ones are to be servers. */
async function machinesOf({
  stack,
  names,
  servers,
}: {
  stack: AsyncDisposableStack
  names: readonly string[]
  servers: number
}) {
  const lan = stack.use(await Lan.create())
  const all: Cluster[] = []
  const urls: string[] = []
  for (const [index, name] of names.entries()) {
    const machine = stack.use(await Machine.create({ name, program: artifactBefore }))
    urls.push(`https://${await lan.join(machine)}:6443`)
    addTestImage(machine)
    const flags = servers > 1 && index < servers ? ['--server-mode=ha'] : []
    all.push(stack.use(new Cluster(machine, { flags })))
  }
  return { servers: all.slice(0, servers), agents: all.slice(servers), urls: urls.slice(0, servers) }
}

async function join(
  newcomers: readonly Cluster[],
  { server, url, role }: { server: Cluster; url: string | undefined; role: 'server' | 'agent' },
): Promise<void> {
  const token = (await server.k8s(['token', 'create', `--role=${role}`])).stdout
  for (const { machine } of newcomers) writeFileSync(machine.path('/run/token'), token)
  for (const newcomer of newcomers)
    newcomer.startDaemon({ flags: [role, `--server=${url}`, '--token-file=/run/token'] })
  for (const newcomer of newcomers) await newcomer.ready()
}

test('a server alone, then its agents; in the wrong order it is refused, and there is a way back', async () => {
  await using stack = new AsyncDisposableStack()
  const names = ['server', 'agent-1', 'agent-2']
  const { servers, agents, urls } = await machinesOf({ stack, names, servers: 1 })
  const [server] = servers as [Cluster]
  const [agent] = agents as [Cluster]
  server.startDaemon()
  await server.ready()
  await join(agents, { server, url: urls[0], role: 'agent' })
  expect(await versionsOf(server)).toEqual([before, before, before])
  const containers = await runWeb(server, 3)
  const probe = stack.use(await startProbe(server))
  const traffic = stack.use(startTraffic(server))
  await traffic.writing

  await upgrade(agent, artifact)
  const { exitCode } = await agent.daemon.ended
  expect(exitCode, agent.daemon.logTail()).toBe(2)
  expect(agent.daemon.log()).toContain(
    `this machine has ${now}+k8s.1, and the servers ${before}+k8s.1. A node must not be newer than its servers: upgrade those first`,
  )
  await start(agent, artifactBefore)
  await agent.ready()

  await upgrade(server, artifact)
  await server.ready()
  expect(await serverVersion(server)).toBe(now)
  expect(await versionsOf(server)).toEqual([before, before, now])
  for (const one of agents) await one.ready()
  await goBack(server)

  for (const one of [server, ...agents]) {
    await upgrade(one, artifact)
    await one.ready()
  }
  expect(await versionsOf(server)).toEqual([now, now, now])
  expect(await containersOf(server)).toEqual(containers)
  expect(findProblems(await traffic.stop())).toEqual([])
  expect(await probe.stop()).toEqual({ failures: [], wasAsked: true })
})

test('three servers, one after the other, then their agents: the API answers all along, as does a Service', async () => {
  await using stack = new AsyncDisposableStack()
  const names = ['server-1', 'server-2', 'server-3', 'agent-1', 'agent-2']
  const { servers, agents, urls } = await machinesOf({ stack, names, servers: 3 })
  const [first, second, third] = servers as [Cluster, Cluster, Cluster]
  const [agent] = agents as [Cluster]
  first.startDaemon({ flags: ['--cluster-init'] })
  await first.ready()
  await join([second, third], { server: first, url: urls[0], role: 'server' })
  await join(agents, { server: first, url: urls[0], role: 'agent' })
  const containers = await runWeb(first, 5)
  const probe = stack.use(await startProbe(first))
  const kubeconfig = first.machine.path('/var/lib/k8s/admin.kubeconfig')
  const traffic = stack.use(startTrafficOn({ networkPid: agent.machine.initPid }, { kubeconfig, urls }))
  await traffic.writing

  await upgrade(first, artifact)
  await first.ready()
  // While the others are as they were, etcd is, too.
  await goBack(first)
  await upgrade(first, artifact)
  await first.ready()
  expect(await serverVersion(first)).toBe(now)
  // Newer than one server, and not than another.
  await upgrade(agent, artifact)
  expect((await agent.daemon.ended).exitCode, agent.daemon.logTail()).toBe(2)
  await start(agent, artifactBefore)
  await agent.ready()
  for (const one of [second, third, ...agents]) {
    await upgrade(one, artifact)
    await one.ready()
  }
  expect(await versionsOf(third)).toEqual([now, now, now, now, now])
  for (const server of servers) expect(await serverVersion(server)).toBe(now)
  expect(await containersOf(third)).toEqual(containers)
  expect(findProblems(await traffic.stop())).toEqual([])
  expect(await probe.stop()).toEqual({ failures: [], wasAsked: true })
})

/** To the artifact that is kept of the version before. */
async function goBack(server: Cluster): Promise<void> {
  copyFileSync(keptArtifact(server.machine), server.machine.path('/run/former-k8s'))
  await upgrade(server, '/run/former-k8s')
  await server.ready()
  expect(await serverVersion(server)).toBe(before)
}

/** Stops the daemon, puts another artifact in its place, and starts it: its pods run on. */
async function upgrade(cluster: Cluster, to: string): Promise<void> {
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  await start(cluster, to)
}

async function start(cluster: Cluster, program: string): Promise<void> {
  // One upon the other, the third mount of a file is not the one that is seen.
  const place = 'umount --lazy /run/bin/k8s && mount --bind "$1" /run/bin/k8s'
  await cluster.exec(['sh', '-c', place, 'sh', program])
  cluster.startDaemon()
}

/** In the payload of the version before, as docs/upgrade.md has it. */
function keptArtifact(machine: Machine): string {
  const found = payloadsOf(machine)
    .map((payload) => machine.path(payload))
    .find((payload) => {
      const text = readFileSync(path.join(payload, 'lib', 'version.json'), 'utf8')
      return (JSON.parse(text) as { k8sVersion: string }).k8sVersion === before
    })
  if (found === undefined) throw new Error(`there is no payload of ${before} on ${machine.id}`)
  return path.join(found, 'k8s')
}

async function serverVersion(server: Cluster): Promise<string> {
  const { stdout } = await server.kubectl(['version', '-o', 'json'])
  const { serverVersion } = JSON.parse(stdout) as { serverVersion: { gitVersion: string } }
  return serverVersion.gitVersion.replace('+k8s.1', '')
}

/** Of the Nodes' kubelets, in the order of their names. */
async function versionsOf(server: Cluster): Promise<string[]> {
  const { items } = await server.get<{ items: { status: { nodeInfo: { kubeletVersion: string } } }[] }>(
    'nodes',
  )
  return items.map(({ status }) => status.nodeInfo.kubeletVersion.replace('+k8s.1', ''))
}

/** A Deployment on all nodes behind a Service; returns its containers. */
async function runWeb(server: Cluster, replicas: number): Promise<string[]> {
  const spread = {
    topologySpreadConstraints: [
      {
        maxSkew: 1,
        topologyKey: 'kubernetes.io/hostname',
        whenUnsatisfiable: 'DoNotSchedule',
        labelSelector: { matchLabels: { app: 'web' } },
      },
    ],
  }
  await server.waitFor('pods are admitted', () => server.get('serviceaccount', 'default'))
  await server.apply(
    deployment('web', webServer, { replicas, spec: spread }),
    service('web', { port: 80, targetPort: 8080 }),
  )
  await server.wait(['--for=condition=Available', 'deployment/web'])
  return containersOf(server)
}

async function containersOf(server: Cluster): Promise<string[]> {
  const { items } = await server.get<{
    items: { status: { containerStatuses: { containerID: string; restartCount: number }[] } }[]
  }>('pods')
  return items
    .flatMap(({ status }) => status.containerStatuses)
    .map(({ containerID, restartCount }) => `${containerID} ${restartCount}`)
    .toSorted()
}

/** Asks the Service all along, from the machine of a server, and tells at its stop when it was not answered. */
async function startProbe(server: Cluster) {
  const { spec } = await server.get<{ spec: { clusterIP: string } }>('service', 'web')
  const ask = `curl -sf -o /dev/null -m 3 http://${spec.clusterIP}/`
  await server.waitFor('the Service answers', async () => {
    const { exitCode } = await server.exec(['sh', '-c', ask], { check: false })
    return exitCode === 0
  })
  const loop = `while [ ! -e /run/enough ]; do ${ask} && echo answered || echo failed at $(date +%T); sleep 0.2; done`
  const running = server.machine.spawn(['sh', '-c', loop])
  const said = text(running.child.stdout!)
  return {
    async stop() {
      writeFileSync(server.machine.path('/run/enough'), '')
      const lines = (await said).trim().split('\n')
      return { failures: lines.filter((line) => line !== 'answered'), wasAsked: lines.length > 100 }
    },
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  }
}
