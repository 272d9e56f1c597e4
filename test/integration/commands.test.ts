import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parse } from 'yaml'
import { addTestImage, type Cluster, defaultDataDir, startCluster } from './harness/cluster.ts'
import { kubernetesVersion, packedImageName } from './harness/images.ts'
import type { Machine } from './harness/machine.ts'
import { pod, sleepForever } from './harness/manifests.ts'
import { processesOf, processNames } from './harness/processes.ts'
import { reportFailures } from './harness/report.ts'

const componentNames = ['datastore', ...processNames] as const

/** Leaves a mark when it is asked to end, which SIGKILL does not. */
const endPolitely = 'trap "echo ended by TERM >/marks/end; exit" TERM; while :; do sleep 0.1; done'

/** A kubeconfig that was there before, in which the cluster gets a context of its own. */
const kubeconfig = '/etc/somebody/config'
const somebodys = `apiVersion: v1
kind: Config
clusters:
- cluster:
    server: https://example.org:6443 # elsewhere
  name: k8s
contexts:
- context:
    cluster: k8s
    user: me
  name: k8s
current-context: k8s
users:
- name: me
  user:
    token: "0123"
`

let cluster: Cluster

beforeAll(async () => {
  cluster = await startCluster({
    name: 'commands',
    flags: [`--write-kubeconfig=${kubeconfig}`],
    prepare(machine) {
      addTestImage(machine)
      mkdirSync(machine.path('/etc/somebody'))
      writeFileSync(machine.path(kubeconfig), somebodys, { mode: 0o640 })
    },
  })
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

/** What two earlier versions left; the second one is the younger, and a process runs from the first. */
const earlier = ['aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb', 'cccccccccccccccc'] as const

test('payloads of earlier versions are shown, and go when nothing runs from them; the last one stays', async () => {
  const payloads = `${defaultDataDir}/data`
  for (const [age, id] of earlier.entries()) {
    const make = `mkdir -p ${payloads}/${id}/bin && cp /bin/sleep ${payloads}/${id}/bin/ && touch -d @${age} ${payloads}/${id}`
    await cluster.exec(['sh', '-c', make])
  }
  await using user = cluster.machine.spawn([`${payloads}/${earlier[0]}/bin/sleep`, '1000'])
  await cluster.waitFor('it runs', async () =>
    processesOf(cluster.machine).some(({ arguments: [time] }) => time === '1000'),
  )
  const shown = async () => {
    const { stdout } = await cluster.k8s(['status', '-o', 'json'])
    const { payloads: found } = JSON.parse(stdout) as { payloads: { dir: string; use: string }[] }
    return Object.fromEntries(found.map(({ dir, use }) => [dir.split('/').at(-1) ?? '', use]))
  }
  const removed = await cluster.k8s(['reset', '--old-payloads'])
  expect(removed.stdout).toContain(`removed ${payloads}/${earlier[1]} `)
  const uses = await shown()
  expect(uses).toMatchObject({ [earlier[0]]: 'used', [earlier[2]]: 'previous' })
  expect(Object.values(uses).toSorted()).toEqual(['previous', 'running', 'used'])
  await user[Symbol.asyncDispose]()
  await cluster.k8s(['reset', '--old-payloads'])
  expect(Object.keys(await shown())).not.toContain(earlier[0])
  await cluster.exec(['rm', '-r', `${payloads}/${earlier[2]}`])
})

test('the artifact is kept beside its payload, and starts from there', async () => {
  const kept = await cluster.waitFor(
    'the artifact is kept',
    async () => {
      const { stdout } = await cluster.k8s(['status', '-o', 'json'])
      const { payloads } = JSON.parse(stdout) as { payloads: { use: string; artifact?: string }[] }
      return payloads.find(({ use }) => use === 'running')?.artifact
    },
    { timeoutMs: 180_000 },
  )
  await cluster.exec(['cmp', kept, '/run/bin/k8s'])
  expect((await cluster.exec([kept, '--version'])).stdout).toMatch(/^GitVersion: /)
})

test('status shows each component with its state, process and use', async () => {
  const { stdout } = await cluster.k8s(['status'])
  const [header, ...rows] = stdout.trimEnd().split('\n')
  for (const column of ['NAME', 'STATE', 'PID', 'RESTARTS', 'SINCE', 'MEMORY', 'CPU'])
    expect(header).toContain(column)
  const states = rows.slice(0, componentNames.length).map((row) => row.split(/\s+/).slice(0, 2))
  expect(Object.fromEntries(states)).toEqual(
    Object.fromEntries(componentNames.map((name) => [name, 'ready'])),
  )
})

test('status -o json says the same to a program', async () => {
  const status = await cluster.status()
  expect(status.nodeReady).toBe(true)
  expect(status.components.map(({ name }) => name).sort()).toEqual([...componentNames].sort())
  expect(status.components.map(({ state }) => state)).toEqual(componentNames.map(() => 'ready'))
  expect(status.components.map(({ restarts }) => restarts)).toEqual(componentNames.map(() => 0))
  for (const { pid, since } of status.components) {
    expect(existsSync(cluster.machine.path(`/proc/${pid}`))).toBe(true)
    expect(new Date(since).getTime()).toBeLessThanOrEqual(Date.now())
  }
})

test('status --wait returns when the node is Ready', async () => {
  expect((await cluster.k8s(['status', '--wait'])).exitCode).toBe(0)
})

test('--version, kubectl version and the node say the version of Kubernetes and ours', async () => {
  const gitVersion = `${kubernetesVersion()}+k8s.1`
  expect((await cluster.k8s(['--version'])).stdout).toContain(gitVersion)
  const { clientVersion, serverVersion } = JSON.parse(
    (await cluster.kubectl(['version', '-o', 'json'])).stdout,
  ) as Record<string, { gitVersion: string; gitTreeState: string }>
  expect(clientVersion).toMatchObject({ gitVersion, gitTreeState: 'clean' })
  expect(serverVersion).toMatchObject({ gitVersion, gitTreeState: 'clean' })
  const { items } = await cluster.get<{ items: { status: { nodeInfo: { kubeletVersion: string } } }[] }>(
    'nodes',
  )
  expect(items.map(({ status }) => status.nodeInfo.kubeletVersion)).toEqual([gitVersion])
})

test('kubectl, crictl and ctr work with no further set-up', async () => {
  expect((await cluster.k8s(['kubectl', 'get', 'namespaces', '-o', 'name'])).stdout).toContain(
    'namespace/kube-system',
  )
  expect((await cluster.k8s(['crictl', 'version'])).stdout).toMatch(/RuntimeName: +containerd/)
  expect((await cluster.k8s(['ctr', 'images', 'list', '-q'])).stdout).toContain(packedImageName('pause'))
})

test('a failed kubectl keeps its exit code and words', async () => {
  const { exitCode, stderr } = await cluster.kubectl(['get', 'pod', 'nobody'], { check: false })
  expect(exitCode).toBe(1)
  expect(stderr).toBe('Error from server (NotFound): pods "nobody" not found\n')
})

test('--write-kubeconfig makes a context that works, beside what somebody has in that file', async () => {
  const { stdout } = await cluster.kubectl([
    ...[`--kubeconfig=${kubeconfig}`, '--context=k8s-2'],
    ...['auth', 'can-i', '*', '*'],
  ])
  expect(stdout.trim()).toBe('yes')
  // As kubectl reads and writes it; the marks are its own to keep.
  await cluster.kubectl([`--kubeconfig=${kubeconfig}`, 'config', 'rename-context', 'k8s-2', 'here'])
  const current = await cluster.kubectl([`--kubeconfig=${kubeconfig}`, 'config', 'current-context'])
  expect(current.stdout.trim()).toBe('k8s')
  expect((await cluster.exec(['stat', '-c', '%a', kubeconfig])).stdout.trim()).toBe('640')
})

test('a second daemon on the same data directory is refused with the pid of the first', async () => {
  const { exitCode, stderr } = await cluster.k8s(['--data-dir', defaultDataDir], { check: false })
  expect(exitCode).toBe(1)
  expect(stderr).toContain(String(cluster.daemon.pid))
  expect(cluster.daemon.ending).toBeUndefined()
  expect((await cluster.kubectl(['get', '--raw', '/readyz'])).stdout).toBe('ok')
})

test('the API server outlives what is wrong with the rest of a command line', async () => {
  const { exitCode } = await cluster.k8s(['--node-nmae=x'], { check: false })
  expect(exitCode).toBe(2)
  expect(cluster.daemon.ending).toBeUndefined()
})

test('reset is refused while the daemon runs, and without --force where there is no terminal', async () => {
  const running = await cluster.k8s(['reset', '--force'], { check: false })
  expect(running.exitCode).toBe(1)
  expect(running.stderr).toMatch(/cannot reset: the daemon runs[^\n]*k8s stop/)
  const unasked = await cluster.k8s(['reset'], { check: false })
  expect(unasked.exitCode).toBe(2)
  expect(unasked.stderr).toContain('--force')
  await cluster.ready()
})

test('stop ends the daemon and leaves pods running', async () => {
  await cluster.runPods(pod('keeper', sleepForever))
  await cluster.k8s(['stop'])
  expect(await cluster.daemon.ended).toEqual({ exitCode: 0, signal: null })
  expect(shells(sleepForever)).toHaveLength(1)
})

test('stop --pods ends the pods, too, gracefully', async () => {
  cluster.startDaemon()
  await cluster.ready()
  await cluster.kubectl(['delete', 'pod', 'keeper'])
  await cluster.runPods(
    pod('polite', endPolitely, {
      container: { volumeMounts: [{ name: 'marks', mountPath: '/marks' }] },
      spec: {
        terminationGracePeriodSeconds: 20,
        volumes: [{ name: 'marks', hostPath: { path: '/var/lib/marks', type: 'DirectoryOrCreate' } }],
      },
    }),
  )
  await cluster.k8s(['stop', '--pods'])
  expect((await cluster.daemon.ended).exitCode).toBe(0)
  expect(cluster.machine.read('/var/lib/marks/end')).toBe('ended by TERM\n')
  expect(remainingProcesses()).toEqual([])
})

test('after a stop with its pods everything runs again', async () => {
  cluster.startDaemon()
  await cluster.ready()
  // Until the kubelet has looked, the API server says what was true before the stop.
  const restarted = await cluster.waitFor('the pod runs again', async () => {
    const [status] = (await cluster.pod('polite')).status.containerStatuses ?? []
    return status?.ready === true && status.restartCount > 0 ? status : undefined
  })
  expect(restarted.restartCount).toBe(1)
})

test('--stop-pods makes SIGTERM end the pods', async () => {
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  cluster.startDaemon({ flags: ['--stop-pods'] })
  await cluster.ready()
  expect((await cluster.daemon.stop()).exitCode).toBe(0)
  expect(remainingProcesses()).toEqual([])
})

test('reset removes everything that a killed daemon left with pods running', async () => {
  cluster.startDaemon()
  await cluster.ready()
  await cluster.waitFor('the pod runs again', async () => shells(endPolitely).length === 1)
  const links = await linksOf(cluster.machine)
  expect(links).toContain('cni0')
  cluster.daemon.signal('SIGKILL')
  await cluster.daemon.ended
  const { exitCode } = await cluster.k8s(['reset', '--force', `--write-kubeconfig=${kubeconfig}`])
  expect(exitCode).toBe(0)
  expect(remainingProcesses()).toEqual([])
  expect(await linksOf(cluster.machine)).toEqual(['eth0', 'lo', 'nowhere'])
  expect((await cluster.exec(['nft', 'list', 'tables'])).stdout).not.toMatch(/kube|cni/i)
  expect((await cluster.exec(['iptables-save'])).stdout).not.toMatch(/KUBE-|CNI-/)
  const mounts = cluster.machine.read('/proc/1/mountinfo')
  for (const place of [defaultDataDir, '/var/lib/kubelet', '/run/containerd', '/run/netns'])
    expect(mounts).not.toContain(place)
  expect((await cluster.exec(['find', '/sys/fs/cgroup', '-maxdepth', '2', '-name', '*kube*'])).stdout).toBe(
    '',
  )
  const made = [
    defaultDataDir,
    '/var/lib/kubelet',
    '/var/lib/cni',
    '/run/k8s',
    '/run/containerd',
    '/var/log/pods',
  ]
  expect(made.filter((place) => existsSync(cluster.machine.path(place)))).toEqual([])
  const left = parse(cluster.machine.read(kubeconfig)) as object
  expect(left).toEqual(parse(somebodys))
  // Marks are a pod's own.
  expect(readdirSync(cluster.machine.path('/var/lib'))).toEqual(['marks'])
})

test('reset where nothing is left says so and succeeds', async () => {
  expect((await cluster.k8s(['reset', '--force'])).exitCode).toBe(0)
})

async function linksOf(machine: Machine): Promise<string[]> {
  return (await machine.exec(['ls', '/sys/class/net'])).stdout.trim().split(/\s+/).sort()
}

/** Processes in pods that run this line. */
function shells(line: string) {
  return processesOf(cluster.machine).filter(
    ({ name, arguments: given }) => name === 'sh' && given[1] === line,
  )
}

/** Everything but the machine's own pid 1. */
function remainingProcesses(): string[] {
  return processesOf(cluster.machine)
    .filter(({ pid }) => pid !== 1)
    .map(({ pid, name }) => `${pid} ${name}`)
}
