import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { gzipSync, zstdDecompressSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Cluster, defaultDataDir, startCluster } from './harness/cluster.ts'
import { nodesWithFigures } from './harness/figures.ts'
import { busyboxArchive } from './harness/images.ts'
import { busybox } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

/** What the cluster has beside its processes: add-ons, and the archives of images. */

/** A pass over the add-ons, and a look at the archives, come within this time even on a machine that is busy. */
const passLimit = { timeoutMs: 120_000 }
const imagesDir = `${defaultDataDir}/images`

let cluster: Cluster

beforeAll(async () => {
  cluster = await startCluster({
    name: 'parts',
    // As strict hosts have it: CoreDNS is not root, and has to read its own files.
    umask: '077',
    prepare(machine) {
      mkdirSync(machine.path(imagesDir), { recursive: true })
      writeFileSync(machine.path(`${imagesDir}/notes.txt`), 'no archive')
      writeFileSync(machine.path(`${imagesDir}/damaged.tar`), 'no tar')
    },
  })
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

test('a cluster is ready when DNS answers, and each add-on is a row of the status', async () => {
  rmSync(cluster.machine.path(`${imagesDir}/notes.txt`))
  rmSync(cluster.machine.path(`${imagesDir}/damaged.tar`))
  const { exitCode, stdout } = await cluster.k8s(['status', '--wait', '--timeout=3m'])
  expect(exitCode).toBe(0)
  expect(stdout).toMatch(/^coredns +ready +\d+Mi$/m)
  expect(stdout).toMatch(/^kubelet-access +ready +-$/m)
  expect(stdout).toMatch(/^images +ready +-$/m)
})

test('kubectl top tells what nodes and pods use', async () => {
  expect(await nodesWithFigures(cluster, 1)).toHaveLength(1)
  await cluster.waitFor(
    'pods have figures',
    async () => {
      const { stdout } = await cluster.kubectl(['top', 'pods', '--no-headers', ...inSystem], { check: false })
      return /^coredns-\S+ +\d+m +\d+Mi/m.test(stdout)
    },
    passLimit,
  )
  await cluster.waitFor(
    'the status says so',
    async () => (await part('metrics-server'))?.state === 'ready',
    passLimit,
  )
})

test('where metrics-server is away its group of the API is, too, and so holds nothing up', async () => {
  const scale = (replicas: number) =>
    cluster.kubectl([...inSystem, 'scale', 'deployment/metrics-server', `--replicas=${replicas}`])
  const group = async () => (await cluster.kubectl(['get', 'apiservices', '-o', 'name'])).stdout
  await scale(0)
  await cluster.waitFor('the group is gone', async () => !(await group()).includes('metrics'), passLimit)
  await cluster.kubectl(['create', 'namespace', 'short'])
  await cluster.kubectl(['delete', 'namespace', 'short', '--timeout=60s'], { timeoutMs: 70_000 })
  await scale(1)
  await cluster.waitFor('the group is back', async () => (await group()).includes('metrics'), passLimit)
  expect(await nodesWithFigures(cluster, 1)).toHaveLength(1)
})

test('what somebody changed or deleted is applied again, and what the API server refuses of it is told', async () => {
  const before = await uidOf('deployment', 'coredns')
  await cluster.kubectl(['-n', 'kube-system', 'delete', 'deployment', 'coredns'])
  await cluster.kubectl(['delete', 'clusterrolebinding', 'k8s:apiserver-kubelet-client'])
  await cluster.kubectl([...patch('service', 'kube-dns'), '{"spec":{"selector":{"k8s-app":"nobody"}}}'])
  const frozen = JSON.stringify({ immutable: true, data: { objects: '[]' } })
  await cluster.kubectl([...patch('configmap', 'k8s-addons'), frozen])
  const isTold = async () =>
    (await cluster.status()).problems.some((problem) =>
      /^coredns: cannot apply ConfigMap k8s-addons: HTTP 422 Invalid: .*immutable/.test(problem),
    )
  await cluster.waitFor('the status says so', isTold, passLimit)
  await cluster.kubectl(['-n', 'kube-system', 'delete', 'configmap', 'k8s-addons'])
  await cluster.waitFor(
    'all is there again',
    async () => {
      const { spec } = await cluster.get<{ spec: { selector: object } }>('service', 'kube-dns', ...inSystem)
      expect(spec.selector).toEqual({ 'k8s-app': 'kube-dns' })
      await cluster.get('clusterrolebinding', 'k8s:apiserver-kubelet-client')
      return (await uidOf('deployment', 'coredns')) !== before
    },
    passLimit,
  )
  await cluster.k8s(['status', '--wait', '--timeout=3m'])
})

test('an object that is annotated as its user’s is left to him', async () => {
  await cluster.kubectl(['-n', 'kube-system', 'annotate', 'configmap', 'coredns', 'k8s.local/owner=user'])
  await cluster.kubectl([
    ...patch('configmap', 'coredns'),
    '{"data":{"Corefile":".:53 {\\n  whoami\\n}\\n"}}',
  ])
  // Another object tells when a pass is over.
  await cluster.kubectl([...patch('service', 'kube-dns'), '{"spec":{"selector":{"k8s-app":"nobody"}}}'])
  await cluster.waitFor(
    'a pass is over',
    async () => {
      const { spec } = await cluster.get<{ spec: { selector: Record<string, string> } }>(
        'service',
        'kube-dns',
        ...inSystem,
      )
      return spec.selector['k8s-app'] === 'kube-dns'
    },
    passLimit,
  )
  const { data } = await cluster.get<{ data: { Corefile: string } }>('configmap', 'coredns', ...inSystem)
  expect(data.Corefile).toContain('whoami')
})

test('files in images/ that are no archives are named, and so are damaged ones; what comes later is imported', async () => {
  const path = (name: string) => cluster.machine.path(`${imagesDir}/${name}`)
  writeFileSync(path('notes.txt'), 'no archive')
  writeFileSync(path('damaged.tar'), 'no tar')
  mkdirSync(path('layout'))
  await cluster.waitFor(
    'the status names them',
    async () => {
      const message = (await part('images'))?.message ?? ''
      return ['notes.txt', 'damaged.tar', 'layout'].every((name) => message.includes(name))
    },
    passLimit,
  )
  expect((await cluster.k8s(['status'], { check: false })).exitCode).toBe(3)
  rmSync(path('layout'), { recursive: true })
  rmSync(path('notes.txt'))
  rmSync(path('damaged.tar'))
  // As a user packs one: with gzip.
  writeFileSync(path('.new'), gzipSync(zstdDecompressSync(readFileSync(busyboxArchive))))
  renameSync(path('.new'), path('busybox.tgz'))
  await cluster.waitFor('the image is there', async () => (await images()).includes(busybox), passLimit)
  await cluster.waitFor('all is well again', async () => (await part('images'))?.state === 'ready', passLimit)
})

test('add-ons stay over a restart, and an image that somebody removed is back after it', async () => {
  const before = await uidOf('deployment', 'coredns')
  await cluster.waitFor('it is known which images the archive has', async () =>
    cluster.machine.read(`${defaultDataDir}/containerd/imported-archives.json`).includes(busybox),
  )
  await cluster.k8s(['ctr', '--namespace=k8s.io', 'images', 'rm', busybox])
  expect(await images()).not.toContain(busybox)
  await restart()
  await cluster.waitFor('the image is back', async () => (await images()).includes(busybox), passLimit)
  await cluster.k8s(['status', '--wait', '--timeout=3m'])
  expect(await uidOf('deployment', 'coredns')).toBe(before)
})

test('--disable removes what runs, but neither what is its user’s nor what others put into the inventory', async () => {
  const inventory = await cluster.get<{ data: { objects: string } }>('configmap', 'k8s-addons', ...inSystem)
  await cluster.kubectl(['create', 'configmap', 'innocent'])
  const innocent = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'innocent', namespace: 'default' },
  }
  const objects = JSON.stringify([...(JSON.parse(inventory.data.objects) as object[]), innocent])
  await cluster.kubectl([...patch('configmap', 'k8s-addons'), JSON.stringify({ data: { objects } })])
  await restart(['--disable=coredns,metrics-server'])
  await cluster.waitFor(
    'it is gone',
    async () => {
      const { stdout } = await cluster.kubectl([
        '-n',
        'kube-system',
        'get',
        'deployment,service,serviceaccount,apiservice,secret',
        '-o',
        'name',
      ])
      return !/coredns|kube-dns|metrics/.test(stdout)
    },
    passLimit,
  )
  const { stdout } = await cluster.kubectl(['get', 'configmap', '--all-namespaces', '-o', 'name'])
  expect(stdout).toContain('configmap/innocent')
  expect(stdout).toContain('configmap/coredns')
  await cluster.k8s(['status', '--wait', '--timeout=3m'])
})

const inSystem = ['-n', 'kube-system'] as const

function patch(kind: string, name: string): string[] {
  return [...inSystem, 'patch', kind, name, '--type=merge', '-p']
}

async function uidOf(kind: string, name: string): Promise<string> {
  return (await cluster.get<{ metadata: { uid: string } }>(kind, name, ...inSystem)).metadata.uid
}

async function part(name: string) {
  return (await cluster.status()).parts.find((one) => one.name === name)
}

async function images(): Promise<string[]> {
  return (await cluster.k8s(['ctr', '--namespace=k8s.io', 'images', 'ls', '--quiet'])).stdout.split('\n')
}

async function restart(flags: readonly string[] = []): Promise<void> {
  cluster.daemon.signal('SIGTERM')
  await cluster.daemon.ended
  cluster.startDaemon({ flags })
  await cluster.ready()
}
