import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster, payloadsOf } from '../integration/harness/cluster.ts'
import { Docker } from '../integration/harness/docker.ts'
import { Machine } from '../integration/harness/machine.ts'
import { busybox, pod, webServer } from '../integration/harness/manifests.ts'
import { waitFor } from '../integration/harness/wait.ts'

/*
 * A kubelet alone on a Docker Engine, upstream's dockerd in the machine: what its pods go through. The tests follow one another
 * on one machine.
 */

const manifests = '/etc/kubernetes/manifests'
const flags = ['kubelet', '--container-runtime=docker', '--profile=container', '--node-name=docker']
const criSocket = 'unix:///var/run/cri-dockerd.sock'

interface StaticPod {
  readonly metadata: { readonly name: string }
  readonly status: {
    readonly podIP?: string
    readonly conditions?: readonly { readonly type: string; readonly status: string }[]
    readonly containerStatuses?: readonly {
      readonly restartCount: number
      readonly containerID?: string
      readonly ready: boolean
    }[]
  }
}

let node: Cluster
let docker: Docker
beforeAll(async () => {
  const machine = await Machine.create({ name: 'docker' })
  node = new Cluster(machine, {})
  addTestImage(machine)
  // Unpacks the artifact, whose containerd and runc are what Docker runs on here.
  await machine.exec(['k8s', 'crictl', '--version'])
  docker = new Docker(machine, { bin: `${payloadsOf(machine)[0]}/bin` })
  await docker.start()
  mkdirSync(machine.path(manifests), { recursive: true })
  writeFileSync(machine.path(`${manifests}/web.yaml`), JSON.stringify(pod('web', `echo begun; ${webServer}`)))
  node.startDaemon({ flags })
})
afterAll(async () => {
  await docker?.[Symbol.asyncDispose]()
  await node?.[Symbol.asyncDispose]()
})

test('a static pod runs on the bridge of Docker, and is reached there', async () => {
  const { status } = await running()
  expect(status.podIP).toMatch(/^172\./)
  expect(await page(status.podIP)).toBe('web-docker\n')
  const { components } = await node.status()
  expect(components.map(({ name }) => name)).toEqual(['cri-dockerd', 'kubelet'])
})

test('its logs, a command in it and its port are there', async () => {
  expect((await kubelet('/containerLogs/default/web-docker/web')).stdout).toBe('begun\n')
  expect((await crictl('exec', await containerId(), 'hostname')).stdout).toBe('web-docker\n')
  const [sandbox = ''] = (await crictl('pods', '--quiet')).stdout.trim().split('\n')
  const command = ['k8s', 'crictl', `--runtime-endpoint=${criSocket}`, 'port-forward', sandbox, '18080:8080']
  await using forward = node.machine.spawn(command)
  expect(forward.child.exitCode).toBeNull()
  await waitFor('the port is forwarded', async () => (await page('127.0.0.1', 18080)) === 'web-docker\n')
})

test('what it uses is told', async () => {
  interface Figures {
    readonly cpu?: { readonly usageCoreNanoSeconds?: number }
    readonly memory?: { readonly workingSetBytes?: number; readonly rssBytes?: number }
  }
  const figures = await waitFor('its figures are there', async () => {
    const { stdout } = await kubelet('/stats/summary')
    const { pods = [] } = JSON.parse(stdout) as { pods?: readonly (Figures & { containers: Figures[] })[] }
    const told = pods.flatMap((one) => [one, ...one.containers])
    return told.length === 2 ? told : undefined
  })
  for (const { cpu, memory } of figures) {
    expect(cpu?.usageCoreNanoSeconds).toBeGreaterThan(0)
    expect(memory?.workingSetBytes).toBeGreaterThan(0)
    expect(memory?.rssBytes).toBeGreaterThan(0)
  }
})

test('a container that is killed comes back', async () => {
  const former = await containerId()
  await docker.request('POST', `/containers/${former}/kill`)
  const { status } = await running(former)
  expect(status.containerStatuses?.[0]?.restartCount).toBe(1)
})

test('a kubelet that starts again finds its pods, which have run on', async () => {
  const former = await containerId()
  await node.daemon.stop()
  expect((await docker.containers()).map(({ Id }) => Id)).toContain(former)
  node.startDaemon({ flags })
  await running()
  expect(await containerId()).toBe(former)
})

test('a Docker that is killed, and starts again, has its pods again', async () => {
  const former = await containerId()
  await docker.kill()
  await waitFor('the status says that Docker is away', async () => {
    const { problems } = await node.status()
    return problems.some((problem) => problem.includes('docker.sock'))
  })
  await docker.start()
  const { status } = await running(former)
  expect(await page(status.podIP)).toBe('web-docker\n')
})

test('with network-plugin=cni, pods are on the bridge of CNI', async () => {
  await node.k8s(['stop', '--pods'])
  node.startDaemon({ flags: [...flags, '--cri-dockerd-arg=network-plugin=cni'] })
  const { status } = await running()
  expect(status.podIP).toMatch(/^10\.244\./)
  expect(await page(status.podIP)).toBe('web-docker\n')
})

/** Beside the two mounts of the short `docker run`; what the programs of the artifact are linked with is the machine's here. */
function inContainer(...more: readonly string[]) {
  const [payload = ''] = payloadsOf(node.machine)
  const libraries = ['/usr', '/lib', '/lib64', payload].map((path) => `${path}:${path}:ro`)
  const mounts = ['/var/run/docker.sock', '/var/lib/docker', manifests].map((path) => `${path}:${path}`)
  return {
    Cmd: [`${payload}/bin/node`, `${payload}/lib/main.js`, ...flags],
    Env: [`K8S_PAYLOAD_DIR=${payload}`],
    hostConfig: { Privileged: true, Binds: [...mounts, ...libraries, ...more] },
  }
}

const missingFlags = [
  'docker run ... -v /var/lib/kubelet:/var/lib/kubelet:rshared',
  'docker run ... -v /var/log/pods:/var/log/pods',
  'docker run ... --pid=host',
  'docker run ... --network=host',
]

test('in a container with two mounts it runs a pod of the host network, and names each flag that is missing', async () => {
  await node.k8s(['stop', '--pods'])
  const spec = { hostNetwork: true }
  writeFileSync(node.machine.path(`${manifests}/web.yaml`), JSON.stringify(pod('web', webServer, { spec })))
  await docker.run('kubelet', busybox, inContainer())
  await waitFor('the pod answers', async () => (await page('127.0.0.1')) !== '')
  const said = await docker.logs('kubelet')
  for (const flag of missingFlags) expect(said).toContain(flag)
  // What the kubelet in it has begun is not ended with it.
  await docker.request('DELETE', '/containers/kubelet?force=1')
  for (const { Id } of await docker.containers()) await docker.request('DELETE', `/containers/${Id}?force=1`)
})

test('in a container with all mounts nothing is missing, and its pods run on when it starts again', async () => {
  for (const path of ['/var/lib/kubelet', '/var/log/pods'])
    mkdirSync(node.machine.path(path), { recursive: true })
  const asked = inContainer('/var/lib/kubelet:/var/lib/kubelet:rshared', '/var/log/pods:/var/log/pods')
  const hostConfig = { ...asked.hostConfig, PidMode: 'host', NetworkMode: 'host' }
  await docker.run('kubelet', busybox, { ...asked, hostConfig })
  const former = await containerId()
  for (const flag of missingFlags) expect(await docker.logs('kubelet')).not.toContain(flag)
  await docker.request('POST', '/containers/kubelet/restart')
  await running()
  expect(await containerId()).toBe(former)
  expect((await kubelet('/containerLogs/default/web-docker/web')).exitCode).toBe(0)
})

test('a reset ends its pods in Docker, and leaves the containers of others', async () => {
  await docker.request('DELETE', '/containers/kubelet?force=1')
  await docker.run('bystander', busybox, { Cmd: ['sleep', '3600'], hostConfig: {} })
  await node.k8s(['reset', '--force', '--role=kubelet', '--container-runtime=docker'])
  expect((await docker.containers()).flatMap(({ Names }) => Names)).toEqual(['/bystander'])
  expect(existsSync(node.machine.path('/var/run/cri-dockerd.sock'))).toBe(false)
})

/** The pod, when it is ready; in another container than a former one. */
async function running(former?: string): Promise<StaticPod> {
  return waitFor('the pod is ready', async () => {
    const { exitCode, stdout } = await kubelet('/pods')
    if (exitCode !== 0) return undefined
    const { items } = JSON.parse(stdout) as { items: readonly StaticPod[] | null }
    const found = items?.find(({ metadata }) => metadata.name === 'web-docker')
    const [container] = found?.status.containerStatuses ?? []
    const isReady = found?.status.conditions?.some(
      ({ type, status }) => type === 'Ready' && status === 'True',
    )
    const isNew = former === undefined || container?.containerID !== `docker://${former}`
    return isReady === true && container?.ready === true && isNew ? found : undefined
  })
}

async function containerId(): Promise<string> {
  const { status } = await running()
  return status.containerStatuses?.[0]?.containerID?.slice('docker://'.length) ?? ''
}

function kubelet(path: string) {
  return node.exec(['curl', '--silent', '--insecure', '--fail', `https://127.0.0.1:10250${path}`], {
    check: false,
  })
}

function crictl(...arguments_: readonly string[]) {
  return node.k8s(['crictl', `--runtime-endpoint=${criSocket}`, ...arguments_])
}

async function page(address: string | undefined, port = 8080): Promise<string> {
  return (await node.exec(['curl', '--silent', `http://${address}:${port}/`], { check: false })).stdout
}
