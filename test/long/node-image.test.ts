import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseToken } from '../../src/cluster/join/token.ts'
import { addTestImage, startCluster } from '../integration/harness/cluster.ts'
import { kubernetesVersion } from '../integration/harness/images.ts'
import { Lan } from '../integration/harness/lan.ts'
import { Machine, repository } from '../integration/harness/machine.ts'
import { pod, sleepForever } from '../integration/harness/manifests.ts'
import { waitFor } from '../integration/harness/wait.ts'
import { OtherMachine } from './other-machine.ts'

/*
 * A machine that has a containerd and the image of a kubelet becomes a Node of ours, by the commands of docs/images.md: kubeadm
 * from the image joins it, and the kubelet is the image's.
 */

const tag = `${kubernetesVersion()}-kubeadm-cni`
const image = `k8s.local/kubelet:${tag}`

/** The mounts of docs/images.md. */
const mount = (path: string, options = 'rbind:rw', target = path) =>
  `--mount=type=bind,src=${path},dst=${target},options=${options}`
const mounts = [
  mount('/etc/kubernetes'),
  mount('/var/lib/kubelet', 'rbind:rshared:rw'),
  mount('/run/containerd'),
]
const kubeletMounts = [
  ...mounts,
  ...['/sys', '/var/lib/containerd', '/var/log/pods', '/var/log/containers'].map((path) => mount(path)),
  // Not every machine has modules.
  ...['/etc/machine-id', '/lib/modules'].filter(existsSync).map((path) => mount(path, 'rbind:ro')),
]
const asOnTheHost = [
  ...['--privileged', '--net-host', '--with-ns=pid:/proc/1/ns/pid', '--with-ns=uts:/proc/1/ns/uts'],
  '--rootfs-propagation=shared',
]

test('a machine with a containerd and the image is a Node', async () => {
  await using lan = await Lan.create()
  await using cluster = await startCluster({
    name: 'images',
    prepare: async (machine) => {
      await lan.join(machine)
      addTestImage(machine)
    },
  })
  await using machine = await Machine.create({ name: 'imaged' })
  await lan.join(machine)
  await using other = await OtherMachine.prepare(machine)
  await machine.exec(['mkdir', '-p', '/etc/kubernetes', '/var/log/pods', '/var/log/containers'])
  const archive = `/tmp/kubelet-${tag}-amd64.tar`
  copyFileSync(`${repository}/dist/images/kubelet-${tag}-amd64.tar`, machine.path(archive))
  await other.ctr(['images', 'import', archive])

  const run = (flags: readonly string[], name: string, ...command: string[]) =>
    other.ctr(['run', '--snapshotter=native', ...flags, image, name, ...command], { timeoutMs: 240_000 })
  // Twice, as when a later one takes the place of the first.
  for (const name of ['plugins', 'plugins-again'])
    await run(
      ['--rm', mount('/opt/cni/bin', 'rbind:rw', '/host')],
      ...([name, 'cp', '-af', '/opt/cni/bin/.', '/host/'] as const),
    )
  // It ends until kubeadm has written its configuration, and is started again.
  const restarts = ['status=running', 'loguri=file:///var/log/kubelet.log']
  await run(
    [
      ...['--detach', '--log-uri=file:///var/log/kubelet.log', ...asOnTheHost, ...kubeletMounts],
      ...restarts.map((label) => `--label=containerd.io/restart.${label}`),
    ],
    'kubelet',
  )

  const made = await cluster.k8s(['token', 'create', '--ttl=1h', '-o', 'json'])
  const { token, server } = JSON.parse(made.stdout) as { token: string; server: string }
  const { id, secret, caHash } = parseToken(token)
  const joined = await run(
    ['--rm', ...asOnTheHost, ...mounts],
    ...(['join', 'kubeadm', 'join', server.slice('https://'.length)] as const),
    ...[`--token=${id}.${secret}`, `--discovery-token-ca-cert-hash=sha256:${caHash}`],
    ...[`--cri-socket=unix://${OtherMachine.criSocket}`, '--ignore-preflight-errors=all'],
  )
  expect(joined.stdout).toContain('This node has joined the cluster')

  const host = (await machine.exec(['hostname'])).stdout.trim()
  const node = await cluster.waitFor('the Node has its range of pods', async () => {
    const found = await cluster.get<{ spec: { podCIDR?: string } }>('node', host)
    return found.spec.podCIDR === undefined ? undefined : found.spec.podCIDR
  })
  writeFileSync(
    machine.path('/etc/cni/net.d/10-bridge.conflist'),
    JSON.stringify({
      ...{ cniVersion: '1.0.0', name: 'bridge' },
      plugins: [
        {
          ...{ type: 'bridge', bridge: 'cni0', isGateway: true, ipMasq: true },
          ipam: { type: 'host-local', ranges: [[{ subnet: node }]], routes: [{ dst: '0.0.0.0/0' }] },
        },
      ],
    }),
  )
  await cluster.wait(['--for=condition=Ready', `node/${host}`])

  // A secret is a tmpfs that the kubelet mounts: what its container has mounted, containerd finds.
  const read = 'cat /secret/word; echo; cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo'
  await cluster.kubectl(['create', 'secret', 'generic', 'words', '--from-literal=word=mellon'])
  const worker = pod('on-image', `${read}; ${sleepForever}`, {
    container: { volumeMounts: [{ name: 'words', mountPath: '/secret' }] },
    spec: { nodeName: host, volumes: [{ name: 'words', secret: { secretName: 'words' } }] },
  })
  await cluster.runPods(worker)
  const logs = async (name: string) => (await cluster.kubectl(['logs', name])).stdout
  await cluster.waitFor('the pod has read them', async () => (await logs('on-image')) === 'mellon\ndefault\n')
  expect(await cluster.shell('on-image', 'echo from $HOSTNAME')).toContain('from on-image')

  // Pods outlive the kubelet, which containerd starts again.
  const started = async () => (await cluster.pod('on-image')).status.containerStatuses?.[0]?.containerID
  const before = await started()
  const task = async () => (await other.ctr(['tasks', 'list'])).stdout
  const pid = async () => /^kubelet +(\d+) +RUNNING/m.exec(await task())?.[1]
  const first = await pid()
  expect(first).toBeDefined()
  await other.ctr(['tasks', 'kill', '--signal=SIGKILL', 'kubelet'])
  await waitFor('the kubelet runs again', async () => {
    const now = await pid()
    return now !== undefined && now !== first
  })
  await cluster.runPods(
    pod('after', `echo again; ${sleepForever}`, {
      spec: { nodeName: host, automountServiceAccountToken: false },
    }),
  )
  await cluster.waitFor('the pod is heard', async () => (await logs('after')) === 'again\n')
  expect(await started()).toBe(before)
  expect(readFileSync(machine.path('/var/log/kubelet.log'), 'utf8')).not.toContain('panic:')
})
