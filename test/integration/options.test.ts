import { readFileSync, writeFileSync } from 'node:fs'
import { zstdDecompressSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Cluster, startCluster } from './harness/cluster.ts'
import { busyboxArchive } from './harness/images.ts'
import { listenersOf } from './harness/listeners.ts'
import type { Machine } from './harness/machine.ts'
import { busybox, pod, sleepForever } from './harness/manifests.ts'
import { processesNamed } from './harness/processes.ts'
import { reportFailures } from './harness/report.ts'

// One cluster with everything set otherwise than by default, from all three sources.

const flags = [
  '--node-label=disk=ssd,rack=7',
  '--node-taint=only=tolerant:NoSchedule',
  '--tls-san=k8s.example.org',
  '--https-listen-port=7443',
  '--cluster-cidr=10.50.0.0/16',
  '--kubelet-arg=max-pods=42',
  '--disable=coredns',
]
const env = {
  K8S_CLUSTER_DOMAIN: 'example.internal',
  K8S_NODE_NAME: 'renamed',
  K8S_DATA_DIR: '/var/lib/elsewhere/k8s',
}
const file =
  'service-cidr: 10.60.0.0/16\nkubelet-root-dir: /var/lib/elsewhere/kubelet\nnode-label: [never=seen]\n'

let cluster: Cluster

beforeAll(async () => {
  cluster = await startCluster({ name: 'options', flags, env, prepare })
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

async function prepare(machine: Machine): Promise<void> {
  await machine.exec(
    ['sh', '-c', 'mkdir -p /etc/k8s /var/lib/elsewhere/k8s/images && cat >/etc/k8s/config.yaml'],
    {
      stdin: file,
    },
  )
  // The same image as .tar and as .tar.zst, and something that is no image.
  const images = machine.path('/var/lib/elsewhere/k8s/images')
  writeFileSync(`${images}/plain.tar`, zstdDecompressSync(readFileSync(busyboxArchive)))
  writeFileSync(`${images}/busybox.tar.zst`, readFileSync(busyboxArchive))
  writeFileSync(`${images}/damaged.tar`, 'no archive')
}

test('the node has its name, labels, taint and capacity', async () => {
  // The range comes from a controller, a moment after the node.
  const node = await cluster.waitFor('the node has its range', async () => {
    const { items } = await cluster.get<{ items: Node[] }>('nodes')
    return items.find(({ spec }) => spec.podCIDR !== undefined)
  })
  expect(node.metadata.name).toBe('renamed')
  expect(node.metadata.labels).toMatchObject({ disk: 'ssd', rack: '7' })
  expect(node.metadata.labels).not.toHaveProperty('never')
  expect(node.spec.taints).toContainEqual({ key: 'only', value: 'tolerant', effect: 'NoSchedule' })
  expect(node.spec.podCIDR).toMatch(/^10\.50\./)
  expect(node.status.capacity.pods).toBe('42')
})

test('the API server has its port, service range and names', async () => {
  expect(listenersOf(cluster.machine).some(({ port }) => port === 7443)).toBe(true)
  expect(listenersOf(cluster.machine).some(({ port }) => port === 6443)).toBe(false)
  const { spec } = await cluster.get<{ spec: { clusterIP: string } }>('service', 'kubernetes')
  expect(spec.clusterIP).toBe('10.60.0.1')
  const named = await cluster.kubectl([
    '--server=https://127.0.0.1:7443',
    '--tls-server-name=k8s.example.org',
    'get',
    '--raw',
    '/readyz',
  ])
  expect(named.stdout).toBe('ok')
})

test('a disabled CoreDNS is not there', async () => {
  const { stdout } = await cluster.kubectl([
    'get',
    'deployments,services,configmaps',
    '--namespace=kube-system',
    '-o',
    'name',
  ])
  expect(stdout).not.toMatch(/dns/)
})

test('pods run with the changed domain, range and kubelet directory', async () => {
  await cluster.runPods(
    pod('tolerant', sleepForever, { spec: { tolerations: [{ key: 'only', operator: 'Exists' }] } }),
  )
  expect((await cluster.pod('tolerant')).status.podIP).toMatch(/^10\.50\./)
  expect(await cluster.shell('tolerant', 'cat /etc/resolv.conf')).toMatch(
    /search default\.svc\.example\.internal/,
  )
  const { uid } = (await cluster.pod('tolerant')).metadata
  expect((await cluster.exec(['ls', '/var/lib/elsewhere/kubelet/pods'])).stdout).toContain(uid)
  expect((await cluster.exec(['ls', '/var/lib'])).stdout).not.toMatch(/^k8s$/m)
  // This place is fixed upstream (k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/constants.go).
  expect((await cluster.exec(['ls', '/var/lib/kubelet'])).stdout).toBe('device-plugins\n')
})

test('archives are imported and pinned, and a damaged one is named and spares the others', async () => {
  const { images } = JSON.parse((await cluster.k8s(['crictl', 'images', '-o', 'json'])).stdout) as {
    images: { repoTags: string[]; pinned: boolean }[]
  }
  expect(images.find(({ repoTags }) => repoTags.includes(busybox))).toMatchObject({ pinned: true })
  const imported = cluster.daemon.log()
  for (const archive of ['plain.tar', 'busybox.tar.zst']) {
    expect(imported).toMatch(new RegExp(`"archive":"[^"]*/${RegExp.escape(archive)}"[^\\n]*imported`))
  }
  expect(imported).toMatch(/"level":"error"[^\n]*damaged\.tar/)
})

test('a taken port names its holder', async () => {
  await cluster.daemon.stop()
  await using holder = cluster.machine.spawn([
    process.execPath,
    '-e',
    'require("net").createServer().listen(7443, "0.0.0.0", () => console.log("up"))',
  ])
  await new Promise((resolve) => holder.child.stdout?.once('data', resolve))
  cluster.startDaemon()
  const holderPid = String(
    processesNamed(cluster.machine, 'node').find(({ arguments: given }) => given[0] === '-e')?.pid,
  )
  const named = await cluster.waitFor(
    'the log names the holder',
    async () =>
      cluster.daemon
        .log()
        .split('\n')
        .find((line) => line.includes('7443') && line.includes(holderPid)),
    { giveUp: () => undefined },
  )
  expect(named).toContain('node')
  await holder[Symbol.asyncDispose]()
})

interface Node {
  readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> }
  readonly spec: { readonly taints?: readonly object[]; readonly podCIDR?: string }
  readonly status: { readonly capacity: { readonly pods: string } }
}
