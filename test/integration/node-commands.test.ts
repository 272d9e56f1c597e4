import { writeFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster } from './harness/cluster.ts'
import { Lan } from './harness/lan.ts'
import { Machine } from './harness/machine.ts'
import { atData, claim, deployment, pod, podSpec, sleepForever } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

/*
 * A server and two agents. On the agents: three pods of a Deployment with a budget, a pod of a DaemonSet each; and on the first one a pod
 * that nothing brings back.
 */

let lan: Lan
let server: Cluster
let agents: Cluster[]
let serverUrl: string

beforeAll(async () => {
  lan = await Lan.create()
  const names = ['server', 'first', 'second']
  const [machine, ...others] = (await Promise.all(names.map((name) => Machine.create({ name })))) as [
    Machine,
    ...Machine[],
  ]
  const address = await lan.join(machine)
  serverUrl = `https://${address}:6443`
  for (const other of others) await lan.join(other)
  for (const one of [machine, ...others]) addTestImage(one)
  server = new Cluster(machine, {
    flags: ['--node-taint=node-role.kubernetes.io/control-plane=true:NoSchedule'],
  })
  agents = others.map((other) => new Cluster(other, {}))
  server.startDaemon()
  await server.ready()
  const token = (await server.k8s(['token', 'create'])).stdout
  for (const agent of agents) {
    writeFileSync(agent.machine.path('/run/token'), token)
    join(agent)
  }
  for (const agent of agents) await agent.ready()
  await server.waitFor('pods are admitted', () => server.get('serviceaccount', 'default'))
  await server.apply(
    deployment('web', sleepForever, { replicas: 3 }),
    daemonSet('everywhere'),
    budget(3),
    pod('alone', sleepForever, {
      spec: { nodeName: nameOf(first()), volumes: [{ name: 'scratch', emptyDir: {} }] },
    }),
  )
  await server.wait(['--for=condition=Available', 'deployment/web'])
  await server.kubectl(['rollout', 'status', 'daemonset/everywhere', '--timeout=60s'])
  await server.waitForPods(['alone'])
  // Until the controller has counted them, a drain is refused with other words.
  await server.wait(['--for=jsonpath={.status.currentHealthy}=3', 'poddisruptionbudget/web'])
})
afterAll(async () => {
  for (const agent of agents ?? []) await agent[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
  await lan?.[Symbol.asyncDispose]()
})
reportFailures(() => server)

const first = () => agents[0]!
const second = () => agents[1]!
const nameOf = ({ machine }: Cluster) => machine.hostName

function join(agent: Cluster) {
  return agent.startDaemon({ flags: ['agent', `--server=${serverUrl}`, '--token-file=/run/token'] })
}

function daemonSet(name: string) {
  const labels = { app: name }
  const template = { metadata: { labels }, spec: podSpec(name, sleepForever) }
  return {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { name },
    spec: { selector: { matchLabels: labels }, template },
  }
}

function budget(minAvailable: number) {
  const selector = { matchLabels: { app: 'web' } }
  return {
    apiVersion: 'policy/v1',
    kind: 'PodDisruptionBudget',
    metadata: { name: 'web' },
    spec: { minAvailable, selector },
  }
}

function node(...words: readonly string[]) {
  return server.k8s(['node', ...words], { check: false })
}

async function podsOn(agent: Cluster): Promise<string[]> {
  const { items } = await server.get<{ items: { metadata: { labels?: { app?: string }; name: string } }[] }>(
    ...['pods', `--field-selector=spec.nodeName=${nameOf(agent)}`],
  )
  return items.map(({ metadata }) => metadata.labels?.app ?? metadata.name).toSorted()
}

async function isCordoned(agent: Cluster): Promise<boolean> {
  const { spec } = await server.get<{ spec: { unschedulable?: boolean } }>('node', nameOf(agent))
  return spec.unschedulable === true
}

test('what nothing brings back is not evicted without a flag each, and nothing is changed', async () => {
  const { exitCode, stderr } = await node('drain', nameOf(first()))
  expect(exitCode).toBe(1)
  for (const part of [
    'default/alone (of no controller',
    'default/alone (with an emptyDir',
    '(of a DaemonSet, which would bring it back: --ignore-daemonsets',
    'Nothing was changed',
  ])
    expect(stderr).toContain(part)
  expect(stderr.trimEnd().split('\n')).toHaveLength(1)
  expect(await isCordoned(first())).toBe(false)
  const { stdout } = await node(
    ...['drain', nameOf(first()), '--dry-run', '--ignore-daemonsets', '--force', '--delete-emptydir-data'],
  )
  expect(stdout).toContain('default/alone would be evicted\n')
  expect(stdout).toMatch(/default\/everywhere-\w+ stays: its DaemonSet/)
  expect(await isCordoned(first())).toBe(false)
})

test('a drain waits for a budget, says whose, and leaves what is left when it is interrupted', async () => {
  const target = (await podsOn(first())).includes('web') ? first() : second()
  const words = ['drain', nameOf(target), '--ignore-daemonsets', '--force', '--delete-emptydir-data']
  const interrupted = server.machine.spawn(['k8s', 'node', ...words])
  const said = { stdout: '', stderr: text(interrupted.child.stderr!) }
  interrupted.child.stdout!.setEncoding('utf8').on('data', (part: string) => (said.stdout += part))
  await server.waitFor('it tells of the budget', async () => said.stdout.includes('waits: '))
  expect(said.stdout).toMatch(
    /default\/web-[-\w]+ waits: The disruption budget web needs 3 healthy pods and has 3 currently/,
  )
  interrupted.kill('SIGINT')
  expect((await interrupted.ended).exitCode).toBe(1)
  expect(await said.stderr).toMatch(
    // What was just asked for, and not answered yet, is among them, without a reason.
    /it was interrupted; it stays cordoned; .*not evicted are .*default\/web-[-\w]+ \(The disruption budget web/,
  )
  expect(await isCordoned(target)).toBe(true)

  const late = await node(...words, '--timeout=1s')
  expect(late).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('1 s are over') })

  const waiting = server.machine.spawn(['k8s', 'node', ...words])
  const end = text(waiting.child.stdout!)
  await server.apply(budget(2))
  expect((await waiting.ended).exitCode).toBe(0)
  expect(await end).toContain(`${nameOf(target)} is drained.`)
  expect(await podsOn(target)).toEqual(['everywhere'])
  await server.wait(['--for=condition=Available', 'deployment/web'])

  expect((await node('uncordon', nameOf(target))).stdout).toContain('takes pods again')
  expect((await node('uncordon', nameOf(target))).stdout).toContain('it was not cordoned')
  expect(await isCordoned(target)).toBe(false)
})

test('a Node that is removed is drained, its machine ends and cannot come back until it joins with a token', async () => {
  const removed = nameOf(second())
  const { exitCode, stdout, stderr } = await node('remove', removed, '--delete-emptydir-data')
  expect(stderr).toBe('')
  expect(stdout).toContain(`${removed} is drained.`)
  expect(stdout).toContain(`${removed} is removed. On that machine: k8s reset`)
  expect(exitCode).toBe(0)
  const ending = await second().daemon.ended
  expect(ending.exitCode, second().daemon.logTail()).toBe(2)
  expect(second().daemon.log()).toContain(`${removed} was removed from the cluster (k8s node remove) at 20`)
  expect((await second().exec(['pgrep', '-f', 'containerd-shim'], { check: false })).stdout).toBe('')

  // Its certificate is valid; it is the cluster that takes no such Node.
  const kubeconfig = '/var/lib/k8s/kubeconfig/kubelet.kubeconfig'
  const registered = await second().exec(
    ['k8s', 'kubectl', `--kubeconfig=${kubeconfig}`, `--server=${serverUrl}`, 'create', '-f', '-'],
    {
      stdin: JSON.stringify({ apiVersion: 'v1', kind: 'Node', metadata: { name: removed } }),
      check: false,
    },
  )
  expect(registered.stderr).toContain(`the Node ${removed} was removed for good`)
  second().startDaemon({ flags: ['agent'] })
  expect((await second().daemon.ended).exitCode, second().daemon.logTail()).toBe(2)
  expect((await server.kubectl(['get', 'node', removed], { check: false })).stderr).toContain('NotFound')

  const again = await node('remove', removed)
  expect(again).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('was removed before') })

  await second().k8s(['reset', '--force'])
  addTestImage(second().machine)
  join(second())
  await second().ready()
})

/** On the first agent: a volume and what has it, which a StatefulSet keeps. */
function keeper() {
  const labels = { app: 'keeper' }
  const { container } = atData('data')
  const line = `[ -e /data/first ] || echo $HOSTNAME >/data/first; ${sleepForever}`
  const spec = {
    ...podSpec('keeper', line, { container }),
    nodeSelector: { 'kubernetes.io/hostname': nameOf(first()) },
  }
  return {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata: { name: 'keeper' },
    spec: {
      ...{ serviceName: 'keeper', replicas: 1, selector: { matchLabels: labels } },
      template: { metadata: { labels }, spec },
      volumeClaimTemplates: [claim('data')],
    },
  }
}

/** As when its power is cut and comes back: no process, no mount of pods, nothing that ends with the machine. */
async function cutPower({ machine, daemon }: Cluster): Promise<void> {
  const unmount = `while read -r _ path _; do
      case $path in /var/lib/kubelet/?*|/var/lib/k8s/run/?*) umount -l "$path" 2>/dev/null || true;; esac
    done < <(tac /proc/mounts)`
  await machine.exec(['bash', '-c', `kill -9 -1; ${unmount}; echo another >/var/lib/k8s/run/boot-id`])
  await daemon.ended
}

test('a volume is there again when its machine is, and a pod waits for it', async () => {
  await server.apply(keeper())
  await server.kubectl(['rollout', 'status', 'statefulset/keeper', '--timeout=90s'], { timeoutMs: 100_000 })
  const before = await server.pod('keeper-0')
  await cutPower(first())
  // Another node could run it, and has not its data.
  await server.kubectl(['delete', 'pod', 'keeper-0', '--force', '--grace-period=0'])
  first().startDaemon()
  await first().ready()
  await server.wait(['--for=condition=Ready', 'pod/keeper-0'])
  const after = await server.pod('keeper-0')
  expect(after.metadata.uid).not.toBe(before.metadata.uid)
  expect(after.spec.nodeName).toBe(nameOf(first()))
  expect(await server.shell('keeper-0', 'cat /data/first')).toBe('keeper-0\n')
})

test('a machine that is off is removed without waiting for it, and ends when it is back', async () => {
  const removed = nameOf(first())
  await first().daemon.stop('SIGKILL')
  const { exitCode, stdout } = await node('remove', removed, '--force')
  expect(exitCode).toBe(0)
  expect(stdout).toContain(`${removed} is not drained, since --force says so.`)
  expect(stdout).toContain(`The data of default/data-keeper-0 are on ${removed} alone`)
  first().startDaemon()
  expect((await first().daemon.ended).exitCode, first().daemon.logTail()).toBe(2)
  expect((await server.kubectl(['get', 'node', removed], { check: false })).stderr).toContain('NotFound')
})

test('the volumes of a Node that is gone go with their claims, and hold nobody up', async () => {
  const volumes = async () => (await server.get<{ items: unknown[] }>('pv')).items.length
  expect(await volumes()).toBe(1)
  await server.kubectl(['delete', 'statefulset', 'keeper', '--cascade=orphan'])
  await server.kubectl(['delete', 'pod', 'keeper-0', '--force', '--grace-period=0', '--ignore-not-found'])
  await server.kubectl(['delete', 'pvc', 'data-keeper-0', '--timeout=60s'])
  await server.waitFor('the volume is gone', async () => (await volumes()) === 0)
})

test('the last server, and a Node that nobody knows, are not removed', async () => {
  const last = await node('remove', nameOf(server), '--force')
  expect(last).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('it is the last server') })
  const unknown = await node('remove', 'nobody')
  expect(unknown).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('there is no Node') })
  for (const words of [
    ['drain', 'nobody'],
    ['uncordon', 'nobody'],
  ])
    expect((await node(...words)).stderr).toContain('there is none of that name. See')
  expect(await node('remove', '..')).toMatchObject({
    exitCode: 2,
    stderr: expect.stringContaining('cannot use ".." as the name of a Node'),
  })
  await server.ready()
})
