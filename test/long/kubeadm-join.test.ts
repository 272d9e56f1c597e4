import { X509Certificate } from 'node:crypto'
import { chmodSync, copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseToken } from '../../src/cluster/join/token.ts'
import { renderContainerdConfig } from '../../src/node/render/containerd-config.ts'
import { addTestImage, defaultDataDir, startCluster } from '../integration/harness/cluster.ts'
import { busyboxArchive, packedImageName } from '../integration/harness/images.ts'
import { Lan } from '../integration/harness/lan.ts'
import { Machine, repository } from '../integration/harness/machine.ts'
import { pod, sleepForever } from '../integration/harness/manifests.ts'
import { waitFor } from '../integration/harness/wait.ts'

/*
 * Upstream's kubeadm, on a machine with a containerd and a kubelet, joins it to a server of ours. What systemd would do
 * there is a loop: it starts the kubelet, as kubeadm's unit has it, when kubeadm has written its configuration.
 */

const kubeadm = `${repository}/build/peers/kubeadm`
const criSocket = '/run/containerd/containerd.sock'
const name = 'worker'

const kubeletService = `
until [ -e /var/lib/kubelet/kubeadm-flags.env ] && [ -e /var/lib/kubelet/config.yaml ]; do sleep 0.2; done
. /var/lib/kubelet/kubeadm-flags.env
exec kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \\
  --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS \\
  >/var/log/kubelet.log 2>&1`

test('kubeadm join makes a machine a Node, whose kubelet is reached', async () => {
  await using lan = await Lan.create()
  await using cluster = await startCluster({
    name: 'kubeadm',
    prepare: async (machine) => {
      await lan.join(machine)
      addTestImage(machine)
    },
  })
  await using machine = await Machine.create({ name })
  const workerIp = await lan.join(machine)
  const bin = await prepareMachine(machine)
  const env = { PATH: `${bin}:/usr/sbin:/usr/bin:/sbin:/bin` }
  await using containerd = machine.spawn(['containerd', '--config=/etc/containerd/config.toml'], { env })
  await using kubelet = machine.spawn(['bash', '-c', kubeletService], { env })
  expect([containerd, kubelet].map(({ child }) => child.exitCode)).toEqual([null, null])
  await waitFor('containerd answers', async () => {
    const { exitCode } = await machine.exec(['ctr', `--address=${criSocket}`, 'version'], {
      env,
      check: false,
    })
    return exitCode === 0
  })
  for (const archive of ['/tmp/busybox.tar.zst', `${bin}/../images/pause.tar.zst`])
    await machine.exec(['ctr', `--address=${criSocket}`, '--namespace=k8s.io', 'images', 'import', archive], {
      env,
    })

  const made = await cluster.k8s(['token', 'create', '--ttl=1h', '-o', 'json'])
  const { token, server } = JSON.parse(made.stdout) as { token: string; server: string }
  const { id, secret, caHash } = parseToken(token)
  const join = [
    ...['kubeadm', 'join', server.slice('https://'.length), `--token=${id}.${secret}`],
    ...[`--discovery-token-ca-cert-hash=sha256:${caHash}`, `--cri-socket=unix://${criSocket}`],
    // Those look for what a distribution brings: systemd's unit, the modules of its kernel, conntrack.
    ...['--ignore-preflight-errors=all', '--v=2'],
  ]
  const joined = await machine.exec(join, { env, check: false, timeoutMs: 240_000 })
  expect(joined.exitCode, `${joined.stdout}\n${joined.stderr}\n${kubeletLog(machine)}`).toBe(0)
  expect(joined.stdout).toContain('This node has joined the cluster')

  const host = (await machine.exec(['hostname'])).stdout.trim()
  const node = await cluster.get<{ status: { addresses: { address: string }[] } }>('node', host)
  expect(node.status.addresses.map(({ address }) => address)).toContain(workerIp)

  // The certificate that it serves is asked for when it runs.
  const directory = '/var/lib/kubelet/pki'
  await cluster.waitFor('the kubelet has its certificates', () =>
    Promise.resolve(readdirSync(machine.path(directory)).includes('kubelet-server-current.pem')),
  )
  const pem = machine.read(`${directory}/${machineFile(machine, directory, 'kubelet-server-')}`)
  const certificate = new X509Certificate(pem)
  expect(certificate.verify(authority(cluster.machine, 'server'))).toBe(true)
  expect(certificate.checkIP(workerIp)).toBe(workerIp)
  const client = new X509Certificate(
    machine.read(`${directory}/${machineFile(machine, directory, 'kubelet-client-')}`),
  )
  expect(client.verify(authority(cluster.machine, 'client'))).toBe(true)

  // It runs what it is given, and the API server reaches it, with either side's certificate checked by the other.
  await cluster.apply(
    pod('on-worker', `echo hello from there; ${sleepForever}`, {
      spec: { nodeName: host, hostNetwork: true, automountServiceAccountToken: false },
    }),
  )
  await cluster.waitFor('the pod is heard', async () => {
    const { exitCode, stdout } = await cluster.kubectl(['logs', 'on-worker'], { check: false })
    return exitCode === 0 && stdout === 'hello from there\n'
  })
})

/** What a package manager would bring; returns the directory of the programs. */
async function prepareMachine(machine: Machine): Promise<string> {
  // Unpacks the artifact, of which only programs of upstream are used here.
  await machine.exec(['k8s', 'crictl', '--version'])
  const [payload = ''] = readdirSync(machine.path(`${defaultDataDir}/data`)).filter((one) =>
    /^[0-9a-f]+$/.test(one),
  )
  const bin = `${defaultDataDir}/data/${payload}/bin`
  for (const directory of ['/etc/containerd', '/etc/cni/net.d', '/var/lib/kubelet'])
    mkdirSync(machine.path(directory), { recursive: true })
  await machine.exec(['mount', '--bind', '/var/lib/kubelet', '/var/lib/kubelet'])
  await machine.exec(['mount', '--make-rshared', '/var/lib/kubelet'])
  copyFileSync(kubeadm, machine.path(`${bin}/kubeadm`))
  chmodSync(machine.path(`${bin}/kubeadm`), 0o755)
  copyFileSync(busyboxArchive, machine.path('/tmp/busybox.tar.zst'))
  writeFileSync(
    machine.path('/etc/containerd/config.toml'),
    renderContainerdConfig({
      ...{ root: '/var/lib/containerd', state: '/run/containerd', socket: criSocket },
      ...{ dropInDir: '/etc/containerd/conf.d', snapshotter: 'native', pauseImage: packedImageName('pause') },
      ...{ shim: `${bin}/containerd-shim-runc-v2`, runc: `${bin}/runc`, cniBinDirs: [`${bin}/cni`] },
      ...{ cniConfDir: '/etc/cni/net.d', cgroupDriver: 'cgroupfs', canLowerOomScore: false },
    }),
  )
  return bin
}

function authority(machine: Machine, of: 'server' | 'client') {
  return new X509Certificate(machine.read(`${defaultDataDir}/pki/${of}-ca.crt`)).publicKey
}

/** The links beside them lead to a path of the machine's. */
function machineFile(machine: Machine, directory: string, prefix: string): string {
  const found = readdirSync(machine.path(directory)).find(
    (one) => one.startsWith(prefix) && !one.includes('current'),
  )
  if (found === undefined) throw new Error(`there is no ${prefix} in ${directory}`)
  return found
}

function kubeletLog(machine: Machine): string {
  try {
    return machine.read('/var/log/kubelet.log').slice(-4000)
  } catch {
    return 'the kubelet was not started'
  }
}
