import { mkdtempDisposableSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { createLoggerTo, silentLogger } from '../../../src/base/logger.ts'
import {
  isUp,
  type Pod,
  podProblems,
  rejectionIn,
  sharedNames,
  staticPods,
} from '../../../src/cluster/kubelet/rejections.ts'
import { Rejections, versionOf } from '../../../src/cluster/kubelet/static-pods.ts'
import type { KubeletContext } from '../../../src/components/component.ts'
import { kubeletAloneArguments } from '../../../src/components/kubelet-alone.ts'
import { aloneFixed, type KubeletConfig } from '../../../src/config/config.ts'
import { loadAnyConfig } from '../../../src/config/load.ts'
import { readOwnConfig } from '../../../src/config/own-kubelet-config.ts'
import { paths } from '../../../src/config/paths.ts'
import { kubeletUrl } from '../../../src/config/ports.ts'
import { bridgeName, networkName } from '../../../src/node/render/cni-config.ts'
import { daemonLayer, renderKubeletLayers } from '../../../src/node/render/kubelet-alone.ts'
import { flagsOf, testHost } from '../config/given.ts'

const root = join(import.meta.dirname, '../../..')

async function configOf(...flags: string[]): Promise<KubeletConfig> {
  const config = await loadAnyConfig({
    flags: flagsOf(flags),
    environment: {},
    host: testHost,
    role: 'kubelet',
  })
  if (config.role !== 'kubelet') throw new Error(config.role)
  return config
}

const refusalOf = (...flags: string[]) =>
  configOf(...flags).then(
    () => 'nothing was refused',
    ({ message }: Error) => message,
  )

describe('the settings', () => {
  test('are closed, and on every address, unless the profile is that of a container', async () => {
    expect(await configOf()).toMatchObject({
      profile: 'closed',
      kubeletBindAddress: '0.0.0.0',
      manifests: '/etc/kubernetes/manifests',
      restartDelay: 1000,
      nodeName: 'worker-1',
    })
    expect(await configOf('--profile=container')).toMatchObject({ kubeletBindAddress: '127.0.0.1' })
  })

  test.each([
    [
      '--restart-delay=10ms',
      'allowed is a whole number with its unit, such as 500ms, 30s, 5m or 1h, of 100ms at least',
    ],
    [
      '--container-runtime-endpoint=tcp://host:1',
      "allowed is unix:///PATH or /PATH of the runtime's CRI socket",
    ],
    ['--kubelet-arg=anonymous-auth=true', 'anonymous-auth belongs to the daemon: use --profile'],
    ['--kubelet-arg=read-only-port=10255', 'read-only-port belongs to the daemon: use readOnlyPort'],
    ['--cluster-cidr=10.1.0.0/16', 'a kubelet alone has no such setting'],
    ['--node-taint=a:NoSchedule', 'a kubelet alone has no such setting'],
    ['--metrics-address=127.0.0.1:10250', 'the kubelet has that port'],
  ])('%s is refused', async (flag, reason) => {
    expect(await refusalOf(flag)).toContain(reason)
  })

  test('a runtime of others is named by its path', async () => {
    expect(await configOf('--container-runtime-endpoint=unix:///run/cri.sock')).toMatchObject({
      containerRuntimeEndpoint: '/run/cri.sock',
    })
  })

  test.each([
    ['0.0.0.0', 'https://127.0.0.1:10250'],
    ['::', 'https://[::1]:10250'],
    ['192.0.2.7', 'https://192.0.2.7:10250'],
  ])('what listens on %s is asked at %s', (address, url) => {
    expect(kubeletUrl(address)).toBe(url)
  })
})

describe('a KubeletConfiguration of the user', () => {
  async function read(text: string, ...flags: string[]) {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-kubelet-'))
    const path = join(directory.path, 'kubelet.yaml')
    writeFileSync(path, text)
    return await readOwnConfig(await configOf(`--kubelet-config=${path}`, ...flags)).catch(
      ({ message }: Error) => message.replaceAll(directory.path, 'DIR'),
    )
  }

  test('is taken as it is', async () => {
    expect(await read('maxPods: 20\nevictionHard: {memory.available: 1Gi}\n')).toEqual({
      maxPods: 20,
      evictionHard: { 'memory.available': '1Gi' },
    })
  })

  test.each([
    ['kind: Pod\n', 'cannot use kind in DIR/kubelet.yaml: allowed is KubeletConfiguration'],
    ['- a\n', 'cannot use DIR/kubelet.yaml: allowed is a map of its keys'],
    ['', 'cannot use DIR/kubelet.yaml: allowed is a map of its keys'],
    ['a: [\n', 'cannot use DIR/kubelet.yaml:2: it is not valid YAML'],
    [
      'staticPodPath: /x\n',
      'cannot use staticPodPath in DIR/kubelet.yaml: it belongs to the daemon: use --manifests',
    ],
    ['authentication: {x509: {clientCAFile: /x}}\n', 'cannot use authentication.x509 in DIR/kubelet.yaml'],
    [
      'authentication: {anonymous: {enabled: true}}\n',
      'cannot use authentication.anonymous in DIR/kubelet.yaml',
    ],
    ['readOnlyPort: 10255\n', 'cannot use readOnlyPort in DIR/kubelet.yaml'],
  ])('%j is refused', async (text, message) => {
    expect(await read(text)).toContain(message)
  })

  test.each(['--insecure=true', '--kubelet-bind-address=127.0.0.1', '--kubelet-bind-address=::1'])(
    'may let everybody in with %s',
    async (flag) => {
      const text = 'authentication: {anonymous: {enabled: true}}\nreadOnlyPort: 10255\n'
      expect(await read(text, flag)).toHaveProperty('readOnlyPort', 10255)
    },
  )

  test('may close the profile of a container, which takes --insecure off loopback otherwise', async () => {
    const open = ['--profile=container', '--kubelet-bind-address=0.0.0.0']
    await expect(configOf(...open).then(readOwnConfig)).rejects.toThrow(
      'cannot use the profile container with kubelet-bind-address 0.0.0.0: other machines can reach it',
    )
    expect(await read('authentication: {anonymous: {enabled: false}}\n', ...open)).toHaveProperty(
      'authentication',
    )
    expect(await configOf(...open, '--insecure=true').then(readOwnConfig)).toBeUndefined()
  })
})

describe('the configuration of the kubelet', () => {
  const options = {
    cgroupVersion: 1,
    cgroupDriver: 'cgroupfs',
    canLowerOomScore: false,
    userNamespace: false,
    clientCaFile: '/pki/client-ca.crt',
    rootDir: '/var/lib/kubelet',
    resolvConf: '/etc/resolv.conf',
    serving: { certFile: '/pki/kubelet.crt', keyFile: '/pki/kubelet.key' },
    profile: 'closed',
    runtimeSocket: '/run/cri.sock',
    staticPodDir: '/etc/kubernetes/manifests',
    bindAddress: '0.0.0.0',
    own: undefined,
  } as const
  const merged = (layers: Readonly<Record<string, string>>) =>
    Object.assign({}, ...Object.values(layers).map((text) => JSON.parse(text) as object)) as Record<
      string,
      unknown
    >

  test('standalone.yaml lets nobody in without a certificate', () => {
    const standalone = parse(readFileSync(join(root, 'standalone.yaml'), 'utf8')) as object
    expect(standalone).toMatchObject({
      kind: 'KubeletConfiguration',
      authentication: { anonymous: { enabled: false }, webhook: { enabled: false } },
      readOnlyPort: 0,
    })
  })

  test('what the daemon relies on comes last, and the keys of the user before it', () => {
    const layers = renderKubeletLayers({
      ...options,
      own: { maxPods: 20, cgroupDriver: 'systemd', apiVersion: 'x' },
    })
    expect(Object.keys(layers).at(-1)).toBe(daemonLayer)
    expect(merged(layers)).toMatchObject({
      apiVersion: 'kubelet.config.k8s.io/v1beta1',
      maxPods: 20,
      cgroupDriver: 'systemd',
      failCgroupV1: false,
      oomScoreAdj: 0,
      containerRuntimeEndpoint: 'unix:///run/cri.sock',
      address: '0.0.0.0',
      authentication: { x509: { clientCAFile: '/pki/client-ca.crt' } },
    })
  })

  test('the profile of a container opens it, and leaves cgroups alone', () => {
    const layers = renderKubeletLayers({ ...options, profile: 'container' })
    expect(JSON.parse(layers['20-profile.conf'])).toMatchObject({
      authentication: { anonymous: { enabled: true } },
      authorization: { mode: 'AlwaysAllow' },
      cgroupsPerQOS: false,
      enforceNodeAllocatable: [],
    })
    expect(JSON.parse(renderKubeletLayers(options)['20-profile.conf'])).not.toHaveProperty('authentication')
  })

  test('its flags have no kubeconfig', async () => {
    const config = await configOf('--kubelet-arg=max-pods=9', '--node-label=a=b', '--v=2')
    const args = kubeletAloneArguments({
      config,
      addresses: () => ({ nodeIp: '192.0.2.7', advertiseAddress: '192.0.2.7' }),
      paths: paths(config),
      payload: { standaloneKubelet: '/payload/standalone.yaml' } as KubeletContext['payload'],
    })
    expect(args).toEqual([
      '--config=/payload/standalone.yaml',
      '--config-dir=/var/lib/k8s/etc/kubelet.d',
      '--hostname-override=worker-1',
      '--node-ip=192.0.2.7',
      '--node-labels=a=b',
      '--root-dir=/var/lib/kubelet',
      '--v=2',
      '--max-pods=9',
    ])
  })

  test('cni/10-bridge.conf has the network of its pods', () => {
    expect(JSON.parse(readFileSync(join(root, 'cni/10-bridge.conf'), 'utf8'))).toMatchObject({
      name: networkName,
      bridge: bridgeName,
      ipam: { ranges: [[{ subnet: aloneFixed.clusterCidr }]] },
    })
  })
})

describe('what the kubelet says of files', () => {
  const dir = '/etc/kubernetes/manifests'
  const notProcessed = (err: string) => ({
    message: 'Could not process manifest file',
    fields: { path: `${dir}/a.yaml`, err },
  })

  test.each([
    [notProcessed('static pods may not reference secrets'), 'static pods may not reference secrets'],
    [
      notProcessed(
        `${dir}/a.yaml: couldn't parse as pod(yaml: line 3: did not find expected key), please check config file`,
      ),
      'yaml: line 3: did not find expected key',
    ],
    [
      notProcessed(
        `${dir}/a.yaml: couldn't parse as pod(Object 'Kind' is missing in '{"password":"secret"}'), please check config file`,
      ),
      'it is no object of Kubernetes: it has no kind',
    ],
    [
      notProcessed(
        `${dir}/a.yaml: couldn't parse as pod(invalid pod: &core.Secret{Data:map[string][]uint8{"a":...}}), please check config file`,
      ),
      'it is a Secret, and no Pod',
    ],
    [
      {
        message: 'Unable to process watch event',
        fields: {
          err: `can't process config file "${dir}/a.yaml": static pods may not reference configmaps`,
        },
      },
      'static pods may not reference configmaps',
    ],
    [
      {
        message: 'Provided manifest path is a directory, not recursing into manifest path',
        fields: { path: `${dir}/a.yaml` },
      },
      'it is a directory',
    ],
  ])('%j', (record, reason) => {
    expect(rejectionIn(record)).toEqual({ path: `${dir}/a.yaml`, reason })
  })

  test('of anything else is not touched', () => {
    expect(rejectionIn({ message: 'Starting kubelet', fields: {} })).toBeUndefined()
    expect(
      rejectionIn({ message: 'Unable to process watch event', fields: { err: 'other' } }),
    ).toBeUndefined()
  })

  test('is told once, and forgotten when the file changes', () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-manifests-'))
    const path = join(directory.path, 'a.yaml')
    const lines: string[] = []
    const rejections = new Rejections(
      directory.path,
      createLoggerTo((line) => lines.push(line), { format: 'json' }),
    )
    const record = { message: 'Could not process manifest file', fields: { path, err: 'no pod' } }
    const look = () => rejections.look(new Map([[path, versionOf(statSync(path))]])).length
    writeFileSync(path, 'bad')
    expect([rejections.listen(record), rejections.listen(record), look(), look()]).toEqual([true, true, 1, 1])
    const ofDirectory = { err: `can't process config file "${directory.path}": it is a directory` }
    expect(rejections.listen({ message: 'Unable to process watch event', fields: ofDirectory })).toBe(true)
    expect(lines).toHaveLength(1)
    writeFileSync(path, 'good after all')
    expect(look()).toBe(0)
    rejections.listen(record)
    const files = new Map([[path, versionOf(statSync(path))]])
    // One that was half written when the kubelet read it is not repeated.
    expect([look(), rejections.look(files, performance.now() + 60_000).length]).toEqual([1, 0])
    rejections.listen(record)
    expect([look(), rejections.look(new Map()).length]).toEqual([1, 0])
  })

  test('other lines are logged', () => {
    expect(new Rejections(dir, silentLogger).listen({ message: 'x', fields: {} })).toBe(false)
  })
})

describe('pods', () => {
  const ofFile = { annotations: { 'kubernetes.io/config.source': 'file' } }
  const pod = (status: Pod['status'], name = 'web-node'): Pod => ({
    metadata: { ...ofFile, name, namespace: 'default' },
    spec: { containers: [{ name: 'web' }] },
    ...(status && { status }),
  })
  const running = pod({ phase: 'Running', containerStatuses: [{ name: 'web', state: { running: {} } }] })
  const waiting = (reason: string, message = '') =>
    pod({ phase: 'Pending', containerStatuses: [{ name: 'web', state: { waiting: { reason, message } } }] })

  test('of files alone are static', () => {
    expect(staticPods({ items: [running, { metadata: { name: 'other' } }] })).toEqual([running])
    expect(staticPods({ items: null })).toEqual([])
  })

  test('that do not run are told with the reason', () => {
    expect(
      podProblems([
        running,
        waiting('ContainerCreating'),
        waiting('ErrImagePull', 'no such image\nat all'),
        pod({ phase: 'Failed', reason: 'NodeAffinity', message: 'no match' }),
        pod({ phase: 'Failed' }),
      ]),
    ).toEqual(['web-node: ErrImagePull: no such image at all', 'web-node: NodeAffinity: no match'])
  })

  test('are up when all of their containers run, or they are done', () => {
    expect(
      [running, waiting('ContainerCreating'), pod({ phase: 'Succeeded' }), pod(undefined)].map(isUp),
    ).toEqual([true, false, true, false])
  })

  test('of one name are told with their files', () => {
    const files = ['a', 'b', 'c'].map((name) => ({
      path: `/m/${name}.yaml`,
      name: name === 'c' ? 'x/c' : 'x/web',
    }))
    expect(sharedNames(files)).toEqual(['a.yaml and b.yaml are all x/web: one of them runs'])
  })
})
