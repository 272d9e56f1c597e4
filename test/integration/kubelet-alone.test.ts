import { execFileSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempDisposableSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { addTestImage, Cluster, defaultDataDir } from './harness/cluster.ts'
import { Machine, repository } from './harness/machine.ts'
import { busyboxArchive } from './harness/images.ts'
import { busybox, pod, sleepForever, webServer } from './harness/manifests.ts'
import { processesNamed, signalNamed } from './harness/processes.ts'
import { reportFailures } from './harness/report.ts'

// A kubelet without a cluster in a machine of its own.

let node: Cluster
const manifests = '/etc/kubernetes/manifests'
const pki = `${defaultDataDir}/pki`

beforeAll(async () => {
  const machine = await Machine.create({ name: 'alone' })
  addTestImage(machine)
  pullInstead(machine, 'docker.io/library/busybox:1.37')
  mkdirSync(machine.path(manifests), { recursive: true })
  copyFileSync(`${repository}/manifests/hello-world.yaml`, machine.path(`${manifests}/hello-world.yaml`))
  node = new Cluster(machine, {})
})
afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
})
reportFailures(() => node)

/** Has the image of the tests under the name of one that users pull, which has the same applets. */
function pullInstead(machine: Machine, reference: string): void {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-image-'))
  const index = join(directory.path, 'index.json')
  execFileSync('tar', ['--extract', '--file', busyboxArchive, '--directory', directory.path])
  writeFileSync(index, readFileSync(index, 'utf8').replaceAll(busybox, reference))
  const archive = machine.path(`${defaultDataDir}/images/pulled.tar`)
  execFileSync('tar', ['--create', '--file', archive, '--directory', directory.path, '.'])
}

/** At once: the kubelet reads a file as soon as it is there. */
function write(name: string, manifest: object | string): void {
  const path = (file: string) => node.machine.path(`${manifests}/${file}`)
  writeFileSync(path(`.${name}`), typeof manifest === 'string' ? manifest : JSON.stringify(manifest))
  renameSync(path(`.${name}`), path(name))
}

const remove = (name: string) => rmSync(node.machine.path(`${manifests}/${name}`))
const get = (url: string) => node.exec(['wget', '-qO-', '-T', '5', url], { check: false })
const status = () => node.status()

interface Listed {
  readonly metadata: { readonly name: string; readonly uid: string }
  readonly status: {
    readonly podIP?: string
    readonly containerStatuses?: readonly {
      readonly containerID: string
      readonly restartCount: number
      readonly state: { readonly running?: object }
    }[]
  }
}

async function listed(name: string): Promise<Listed | undefined> {
  const { stdout } = await node.k8s(['pod', 'ls', '-o', 'json'])
  return (JSON.parse(stdout) as Listed[]).find(({ metadata }) => metadata.name.startsWith(`${name}-`))
}

/** Another one after each restart. */
const container = async (name: string) => (await listed(name))?.status.containerStatuses?.[0]?.containerID

const running = (name: string) =>
  node.waitFor(`${name} runs`, async () => {
    const found = await listed(name)
    return found?.status.containerStatuses?.[0]?.state.running === undefined ? undefined : found
  })

const curl = (...args: string[]) =>
  node.exec(['curl', '--silent', '--output', '/dev/null', '--write-out', '%{http_code}', ...args], {
    check: false,
  })
const certificates = [
  '--cacert',
  `${pki}/server-ca.crt`,
  '--cert',
  `${pki}/pod-client.crt`,
  '--key',
  `${pki}/pod-client.key`,
]

test('the web server of manifests/hello-world.yaml runs, and the daemon says so', async () => {
  node.startDaemon({ flags: ['kubelet'] })
  await node.waitFor(
    'it answers',
    async () => (await get('http://127.0.0.1:8080/')).stdout === 'Hello, world!\n',
  )
  await node.k8s(['status', '--wait'])
  expect(await status()).toMatchObject({ role: 'kubelet', state: 'ready', nodeReady: true, problems: [] })
  expect((await status()).components.map(({ name }) => name)).toEqual(['containerd', 'kubelet'])
  expect((await node.k8s(['status'])).stdout).toContain('the kubelet is ready')
  expect((await node.k8s(['pod', 'ls'])).stdout).toMatch(
    /^default +hello-world-\S+ +Running +1\/1 +0 +\S+ +\d+s$/m,
  )
})

test('a pod of its network has an address of 10.244.0.0/16, logs, and takes commands with their input and exit code', async () => {
  write('web.json', pod('web', `echo begun; ${webServer}`))
  const { status: of } = await running('web')
  expect(of.podIP).toMatch(/^10\.244\.0\.\d+$/)
  expect((await get(`http://${of.podIP}:8080/`)).stdout).toMatch(/^web-/)
  expect((await node.k8s(['pod', 'logs', 'web'])).stdout).toBe('begun\n')
  expect((await node.k8s(['pod', 'exec', 'web', '--', 'sh', '-c', 'echo "a  b"; echo c >&2'])).stdout).toBe(
    'a  b\n',
  )
  const echo = await node.k8s(['pod', 'exec', '-i', 'web', '--', 'cat'], { stdin: 'through\n' })
  expect(echo.stdout).toBe('through\n')
  const much = 'head -c 5000000 /dev/zero | k8s pod exec -i web -- cat | wc -c'
  expect((await node.exec(['sh', '-c', much])).stdout).toBe('5000000\n')
  const failed = await node.k8s(['pod', 'exec', 'web', '--', 'sh', '-c', 'exit 7'], { check: false })
  expect(failed).toMatchObject({ exitCode: 7, stderr: '' })
  const none = await node.k8s(['pod', 'logs', 'nosuch'], { check: false })
  expect(none).toMatchObject({ exitCode: 1 })
  expect(none.stderr).toMatch(
    /^k8s: cannot find default\/nosuch: there is default\/hello-world-\S+, default\/web-\S+\n$/,
  )
})

test('who shows no certificate of its authority is turned away on its port', async () => {
  expect((await curl('--insecure', 'https://127.0.0.1:10250/pods')).stdout).toBe('401')
  expect((await curl(...certificates, 'https://127.0.0.1:10250/pods')).stdout).toBe('200')
  expect((await curl('http://127.0.0.1:10255/pods')).stdout).toBe('000')
})

test('a container that is killed comes back', async () => {
  await signalNamed(node.machine, 'SIGKILL', ['httpd'])
  await node.waitFor(
    'a restart',
    async () => (await listed('web'))?.status.containerStatuses?.[0]?.restartCount === 1,
  )
  const { status: of } = await running('web')
  expect(of.containerStatuses?.[0]).toMatchObject({ restartCount: 1 })
})

test('files that are no pods of its are told, once and in the status, and the others run on', async () => {
  await node.exec(['chmod', 'o+w', manifests])
  write('bad.yaml', 'kind: Pod\n  a: [')
  write(
    'secret.json',
    pod('secret', sleepForever, { spec: { volumes: [{ name: 'a', secret: { secretName: 'a' } }] } }),
  )
  write('twin.json', pod('web', sleepForever))
  write(
    'gone.json',
    pod('gone', sleepForever, { container: { image: 'k8s.local/gone:1', imagePullPolicy: 'Never' } }),
  )
  const part = async () => (await status()).parts.find(({ name }) => name === 'static pods')
  await node.waitFor('all four are told', async () => {
    const { message = '' } = (await part()) ?? {}
    const wanted = [
      'others than root can write into',
      'bad.yaml: ',
      'secret.json: static pods may not reference secrets',
      'twin.json and web.json are all default/web',
      'gone-',
    ]
    return wanted.every((words) => message.includes(words))
  })
  const told = node.daemon.records().filter(({ msg }) => msg === 'the kubelet makes no pod of the file')
  expect(told.map(({ file }) => String(file)).toSorted((a, b) => a.localeCompare(b))).toEqual([
    `${manifests}/bad.yaml`,
    `${manifests}/secret.json`,
  ])
  expect((await get('http://127.0.0.1:8080/')).stdout).toBe('Hello, world!\n')
  await node.exec(['chmod', 'o-w', manifests])
  for (const name of ['bad.yaml', 'secret.json', 'twin.json', 'gone.json']) remove(name)
  await node.waitFor('all is well', async () => (await status()).state === 'ready')
  await running('web')
})

test('its pods run on when the kubelet, and when the daemon is killed', async () => {
  const before = await container('hello-world')
  await signalNamed(node.machine, 'SIGKILL', ['kubelet'])
  await node.waitFor('it is back', async () => {
    const { components } = await status()
    const kubelet = components.find(({ name }) => name === 'kubelet')
    return kubelet?.restarts === 1 && kubelet.state === 'ready'
  })
  await node.daemon.stop('SIGKILL')
  // As systemd starts it: what it is, is on the disk.
  node.startDaemon()
  await node.ready()
  expect(processesNamed(node.machine, 'kubelet')).toHaveLength(1)
  await running('hello-world')
  expect(await container('hello-world')).toBe(before)
})

test('stop leaves the pods, and the open profile takes a start of its own: on loopback, or with --insecure', async () => {
  const before = await container('hello-world')
  await node.k8s(['stop'])
  await node.daemon.ended
  expect((await get('http://127.0.0.1:8080/')).stdout).toBe('Hello, world!\n')
  const open = ['kubelet', '--profile=container']
  const refused = node.startDaemon({ flags: [...open, '--kubelet-bind-address=0.0.0.0'] })
  expect(await refused.ended).toMatchObject({ exitCode: 2 })
  expect(refused.log()).toContain('or give --insecure to serve everybody')
  writeFileSync(node.machine.path('/run/own.yaml'), 'maxPods: 7\nevictionHard: {memory.available: 50Mi}\n')
  node.startDaemon({ flags: [...open, '--kubelet-config=/run/own.yaml'] })
  await node.ready()
  const { stdout: configuration } = await node.exec([
    'curl',
    '--silent',
    '--insecure',
    'https://127.0.0.1:10250/configz',
  ])
  expect((JSON.parse(configuration) as { kubeletconfig: object }).kubeletconfig).toMatchObject({
    maxPods: 7,
    cgroupsPerQOS: false,
    address: '127.0.0.1',
    staticPodPath: manifests,
    evictionHard: { 'memory.available': '50Mi', 'nodefs.available': '5%' },
  })
  expect((await curl('--insecure', 'https://127.0.0.1:10250/pods')).stdout).toBe('200')
  const { stdout: listeners } = await node.exec(['cat', '/proc/net/tcp', '/proc/net/tcp6'])
  expect(listeners).toContain('0100007F:280A')
  expect(listeners).not.toContain('00000000:280A')
  expect(await container('hello-world')).toBe(before)
})

test('stop --pods ends them, and reset leaves nothing', async () => {
  await node.k8s(['stop', '--pods'])
  await node.daemon.ended
  expect((await get('http://127.0.0.1:8080/')).stdout).toBe('')
  const { stdout } = await node.k8s(['reset', '--force'])
  expect(stdout).not.toContain('failed')
  const { machine } = node
  for (const path of [defaultDataDir, '/var/lib/kubelet', '/var/log/pods', '/var/lib/cni'])
    expect(existsSync(machine.path(path)), path).toBe(false)
  // They are their user's.
  expect(readdirSync(machine.path(manifests))).toEqual(['hello-world.yaml', 'web.json'])
  expect((await node.exec(['cat', '/proc/net/dev'])).stdout).not.toContain('cni0')
  expect((await node.exec(['nft', 'list', 'tables'])).stdout).toBe('')
  expect(processesNamed(machine, 'containerd-shim-runc-v2')).toEqual([])
})
