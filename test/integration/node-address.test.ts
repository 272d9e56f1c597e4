import { X509Certificate } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster, defaultDataDir } from './harness/cluster.ts'
import { Machine } from './harness/machine.ts'
import { pod, sleepForever } from './harness/manifests.ts'
import { type MachineProcess, processesOf } from './harness/processes.ts'
import { reportFailures } from './harness/report.ts'

/** machine.sh gives every machine the first. */
const first = '10.89.0.2'
const second = '10.89.0.3'
/** Of somebody's own, on lo. */
const announced = '198.51.100.9'
/** How long it may take until a change of the address has been followed, on a loaded machine. */
const followLimitMs = 180_000

let cluster: Cluster

beforeAll(async () => {
  const machine = await Machine.create({ name: 'address' })
  cluster = new Cluster(machine, {})
  addTestImage(machine)
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

test('a machine that never had an address waits for one, and a stop ends the wait', async () => {
  await ip('address', 'flush', 'dev', 'eth0')
  cluster.startDaemon()
  await untilLogged('waiting for an address: this machine has none that the Node could have')
  await cluster.k8s(['stop'])
  expect(await cluster.daemon.ended).toEqual({ exitCode: 0, signal: null })
})

test('it starts as soon as it has one', async () => {
  cluster.startDaemon()
  await untilLogged('waiting for an address: this machine has none that the Node could have')
  await setAddress(first)
  await cluster.ready()
  expect(await nodeAddress()).toBe(first)
  await cluster.waitFor('pods are admitted', () => cluster.get('serviceaccount', 'default'))
  await cluster.runPods(pod('keeper', sleepForever))
})

test('another address is followed while it runs, and pods live on', async () => {
  const container = processesOf(cluster.machine).filter(isKeeper)
  await ip('address', 'flush', 'dev', 'eth0')
  await setAddress(second)
  const limit = { timeoutMs: followLimitMs }
  await cluster.waitFor('the Node has the new address', async () => (await nodeAddress()) === second, limit)
  await untilLogged("the machine's new address is the Node's")
  await cluster.ready()
  await cluster.waitFor('the API server has the new address alone', async () => {
    const slice = await cluster.get<{ endpoints: { addresses: string[] }[] }>('endpointslice', 'kubernetes')
    return slice.endpoints.flatMap(({ addresses }) => addresses).join() === second
  })
  for (const name of ['apiserver', 'kubelet']) {
    const certificate = new X509Certificate(cluster.machine.read(`${defaultDataDir}/pki/${name}.crt`))
    expect(certificate.checkIP(second)).toBe(second)
  }
  expect(processesOf(cluster.machine).filter(isKeeper)).toEqual(container)
  // By the API server's connection to the kubelet at its new address.
  expect(await cluster.shell('keeper', 'echo alive')).toBe('alive\n')
})

test('a start without a network takes the last address, keeps it on lo, and is Ready', async () => {
  await cluster.k8s(['stop'])
  await cluster.daemon.ended
  await ip('link', 'set', 'eth0', 'down')
  await ip('address', 'flush', 'dev', 'eth0')
  cluster.startDaemon()
  await cluster.ready()
  expect(await nodeAddress()).toBe(second)
  expect(await addressesOf('lo')).toContain(`${second}/32`)
  // Nothing leads to Services from the machine itself; pods find them.
  await cluster.k8s(['status', '--wait', '--timeout=3m'], { timeoutMs: 190_000 })
  expect(await cluster.shell('keeper', 'nslookup kubernetes.default.svc.cluster.local')).toContain(
    '10.96.0.1',
  )
  // busybox speaks no TLS that the API server takes, which says so.
  const ask = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT`
  expect(await cluster.shell('keeper', ask)).toContain('Client sent an HTTP request to an HTTPS server')
})

test('it leaves lo when the network is back, and what somebody else has there stays', async () => {
  await ip('address', 'add', `${announced}/32`, 'dev', 'lo')
  await ip('link', 'set', 'eth0', 'up')
  await setAddress(second)
  await cluster.waitFor('lo has its own address alone', async () => {
    return !(await addressesOf('lo')).includes(second)
  })
  await cluster.ready()
  expect(await nodeAddress()).toBe(second)
})

test('reset takes an address away that was kept on lo', async () => {
  await ip('address', 'flush', 'dev', 'eth0')
  await cluster.waitFor('lo has the address', async () => (await addressesOf('lo')).includes(second))
  await cluster.k8s(['stop', '--pods'])
  await cluster.daemon.ended
  expect((await cluster.k8s(['reset', '--force'])).exitCode).toBe(0)
  expect(await addressesOf('lo')).not.toContain(second)
  expect(await addressesOf('lo')).toContain(announced)
})

function isKeeper({ arguments: words }: MachineProcess): boolean {
  return words.at(-1) === sleepForever
}

function ip(...arguments_: string[]) {
  return cluster.exec(['ip', ...arguments_])
}

async function setAddress(address: string): Promise<void> {
  await ip('address', 'replace', `${address}/24`, 'dev', 'eth0')
  await ip('route', 'replace', 'default', 'via', '10.89.0.1')
}

async function addressesOf(name: string): Promise<string> {
  return (await ip('-brief', 'address', 'show', 'dev', name)).stdout
}

async function nodeAddress(): Promise<string | undefined> {
  const { items } = await cluster.get<{
    items: { status: { addresses: { type: string; address: string }[] } }[]
  }>('nodes')
  return items[0]?.status.addresses.find(({ type }) => type === 'InternalIP')?.address
}

function untilLogged(message: string): Promise<boolean> {
  return cluster.waitFor(`the daemon says: ${message}`, () =>
    Promise.resolve(cluster.daemon.records().some(({ msg }) => msg === message)),
  )
}
