import { X509Certificate } from 'node:crypto'
import { chmodSync, copyFileSync, readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseToken } from '../../src/cluster/join/token.ts'
import { addTestImage, defaultDataDir, startCluster } from '../integration/harness/cluster.ts'
import { Lan } from '../integration/harness/lan.ts'
import { Machine, repository } from '../integration/harness/machine.ts'
import { pod, sleepForever } from '../integration/harness/manifests.ts'
import { OtherMachine } from './other-machine.ts'

/*
 * Upstream's kubeadm, on a machine with a containerd and a kubelet, joins it to a server of ours. What systemd would do
 * there is a loop: it starts the kubelet, as kubeadm's unit has it, when kubeadm has written its configuration.
 */

const kubeadm = `${repository}/build/peers/kubeadm`
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
  await using other = await OtherMachine.prepare(machine)
  copyFileSync(kubeadm, machine.path(`${other.bin}/kubeadm`))
  chmodSync(machine.path(`${other.bin}/kubeadm`), 0o755)
  const { env } = other
  await using kubelet = machine.spawn(['bash', '-c', kubeletService], { env })
  expect(kubelet.child.exitCode).toBeNull()

  const made = await cluster.k8s(['token', 'create', '--ttl=1h', '-o', 'json'])
  const { token, server } = JSON.parse(made.stdout) as { token: string; server: string }
  const { id, secret, caHash } = parseToken(token)
  const join = [
    ...['kubeadm', 'join', server.slice('https://'.length), `--token=${id}.${secret}`],
    ...[`--discovery-token-ca-cert-hash=sha256:${caHash}`, `--cri-socket=unix://${OtherMachine.criSocket}`],
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
