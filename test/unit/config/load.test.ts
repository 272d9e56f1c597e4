import { mkdtempDisposableSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { thisHost } from '../../../src/config/host.ts'
import { loadConfig, loadDataDir } from '../../../src/config/load.ts'
import { flagsOf, load, refusal, testHost } from './given.ts'

test('nothing given: every setting has its default', async () => {
  const config = await load({})
  expect(config).toEqual({
    role: 'server',
    serverMode: 'single',
    dataDir: '/var/lib/k8s',
    quotaBackendBytes: 8 * 1024 ** 3,
    snapshotDir: '/var/lib/k8s/snapshots',
    snapshotRetention: 5,
    snapshotScheduleCron: '0 */12 * * *',
    nodeName: 'worker-1',
    nodeLabel: [],
    nodeTaint: [],
    tlsSan: [],
    bindAddress: '0.0.0.0',
    httpsListenPort: 6443,
    clusterCidr: '10.244.0.0/16',
    serviceCidr: '10.96.0.0/12',
    clusterDns: '10.96.0.10',
    clusterDomain: 'cluster.local',
    networkBackend: 'vxlan',
    kubeletRootDir: '/var/lib/kubelet',
    kubeletMountHostsFile: true,
    disable: [],
    localStoragePath: '/var/lib/k8s/storage',
    cgroupDriver: 'auto',
    kubeProxyMode: 'auto',
    vxlanChecksumOffload: false,
    snapshotter: 'overlayfs',
    kubeApiserverArg: [],
    kubeControllerManagerArg: [],
    kubeSchedulerArg: [],
    kubeletArg: [],
    kubeProxyArg: [],
    v: 0,
    logFormat: 'auto',
    stopPods: false,
  })
  expect(Object.isFrozen(config)).toBe(true)
})

describe('precedence', () => {
  const file = 'node-name: from-file\nv: 1\nnode-label: [a=file]\ncluster-domain: file.local\n'
  const environment = { K8S_NODE_NAME: 'from-environment', K8S_V: '2', K8S_NODE_LABEL: 'a=environment' }

  test('the environment wins over the file, a flag over both', async () => {
    const config = await load({ file, environment, flags: ['--node-name=from-flag'] })
    expect(config).toMatchObject({ nodeName: 'from-flag', v: 2, clusterDomain: 'file.local' })
  })

  test('lists of different sources are not joined', async () => {
    expect((await load({ file, environment })).nodeLabel).toEqual(['a=environment'])
    expect(
      (await load({ file, environment, flags: ['--node-label=b=1', '--node-label=c=2'] })).nodeLabel,
    ).toEqual(['b=1', 'c=2'])
  })

  test('an empty flag empties a list', async () => {
    expect((await load({ file, flags: ['--node-label='] })).nodeLabel).toEqual([])
  })

  test('the last one of a repeated flag counts', async () => {
    expect((await load({ flags: ['--v=3', '--v=5'] })).v).toBe(5)
  })

  test('an empty variable is an unset one', async () => {
    expect((await load({ file, environment: { K8S_NODE_NAME: '' } })).nodeName).toBe('from-file')
  })

  test("--config wins over K8S_CONFIG, and the launcher's variables are no settings", async () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-config-'))
    const path = join(directory.path, 'other.yaml')
    writeFileSync(path, 'node-name: other\n')
    const environment = {
      K8S_PAYLOAD_DIR: '/x',
      K8S_NOTIFY_FD: '3',
      K8S_LAUNCHER: 'unpacked-not',
      K8S_VERSION: 'v1.37.1',
    }
    expect((await load({ file, environment, flags: [`--config=${path}`] })).nodeName).toBe('other')
  })
})

describe('lists', () => {
  test('come with commas from flags and environment, as a list from the file', async () => {
    const wanted = ['coredns', 'kube-proxy']
    expect((await load({ flags: ['--disable=coredns,kube-proxy'] })).disable).toEqual(wanted)
    expect((await load({ flags: ['--disable=coredns', '--disable=kube-proxy'] })).disable).toEqual(wanted)
    expect((await load({ environment: { K8S_DISABLE: 'coredns,kube-proxy' } })).disable).toEqual(wanted)
    expect((await load({ file: 'disable:\n  - coredns\n  - kube-proxy\n' })).disable).toEqual(wanted)
    expect((await load({ file: 'disable: coredns,kube-proxy\n' })).disable).toEqual(wanted)
    expect((await load({ file: 'disable: []\n' })).disable).toEqual([])
  })

  test('of flags passed through keep their commas', async () => {
    const wanted = ['feature-gates=A=true,B=false', 'max-pods=50']
    expect((await load({ flags: wanted.map((argument) => `--kubelet-arg=${argument}`) })).kubeletArg).toEqual(
      wanted,
    )
    expect((await load({ environment: { K8S_KUBELET_ARG: ` ${wanted.join('  ')} ` } })).kubeletArg).toEqual(
      wanted,
    )
    expect((await load({ file: `kubelet-arg:\n  - ${wanted.join('\n  - ')}\n` })).kubeletArg).toEqual(wanted)
    expect((await load({ file: 'kubelet-arg: "foo=a b"\n' })).kubeletArg).toEqual(['foo=a b'])
  })
})

describe('values', () => {
  test('paths become absolute', async () => {
    const config = await load({
      flags: ['--data-dir=here', '--write-kubeconfig=./k.yaml', '--kubelet-root-dir=/a/../b/'],
    })
    expect(config.dataDir).toBe(join(process.cwd(), 'here'))
    expect(config.writeKubeconfig).toBe(join(process.cwd(), 'k.yaml'))
    expect(config.kubeletRootDir).toBe('/b')
  })

  test('a file keeps texts as they are written', async () => {
    const config = await load({ file: 'node-name: 0123\nstop-pods: true\nhttps-listen-port: 7443\n' })
    expect(config).toMatchObject({ nodeName: '0123', stopPods: true, httpsListenPort: 7443 })
  })

  test('an IPv6 service range turns the other defaults', async () => {
    const config = await load({ flags: ['--service-cidr=fd01::/112', '--cluster-cidr=fd02::/56'] })
    expect(config).toMatchObject({
      bindAddress: '::',
      clusterDns: 'fd01::a',
    })
  })

  test('ranges of both families are a list in the file or texts with a comma, in the form that components compare', async () => {
    const file = 'cluster-cidr:\n- 10.7.0.0/16\n- fd07:0::/56\nservice-cidr: [10.8.0.0/16, fd08::/112]\n'
    const wanted = { clusterCidr: '10.7.0.0/16,fd07::/56', serviceCidr: '10.8.0.0/16,fd08::/112' }
    expect(await load({ file })).toMatchObject({ ...wanted, clusterDns: '10.8.0.10', bindAddress: '::' })
    const flags = ['--cluster-cidr=10.7.0.0/16, fd07::/56', '--service-cidr=10.8.0.0/16,fd08::/112']
    expect(await load({ flags: [...flags, '--node-ip=fd00::1,192.0.2.1'] })).toMatchObject({
      ...wanted,
      nodeIp: 'fd00::1,192.0.2.1',
    })
  })

  test('a server that joins may name addresses of any family: its cluster says which there are', async () => {
    const flags = ['--server-mode=ha', '--server=https://[fd00::9]:6443', '--node-ip=fd00::1,192.0.2.1']
    expect(await load({ flags })).toMatchObject({ nodeIp: 'fd00::1,192.0.2.1' })
    await expect(load({ flags: flags.toSpliced(1, 1) })).rejects.toThrow('both have to be of one family')
  })

  test('the addresses of the machine are none of the configuration, which is there without a network', async () => {
    const { nodeIp, advertiseAddress } = await load({})
    expect([nodeIp, advertiseAddress]).toEqual([undefined, undefined])
    expect((await load({ flags: ['--node-ip=10.1.2.3'] })).nodeIp).toBe('10.1.2.3')
  })

  test("the kubelet's directory may lie in the data directory", async () => {
    const config = await load({ flags: ['--data-dir=/srv/k8s', '--kubelet-root-dir=/srv/k8s/kubelet'] })
    expect(config.kubeletRootDir).toBe('/srv/k8s/kubelet')
  })
})

describe('the data directory alone', () => {
  test('is found although other settings are broken', async () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-config-'))
    const path = join(directory.path, 'config.yaml')
    writeFileSync(path, 'unknown-key: 1\nnode-ip: nonsense\ndata-dir: /srv/k8s\n')
    const environment = { K8S_NODE_NAME: 'NOT A NAME', K8S_WHATEVER: '1', K8S_CONFIG: path }
    expect(await loadDataDir({ flags: [], environment })).toBe('/srv/k8s')
  })

  test('is refused when it is broken itself', async () => {
    const environment = { K8S_CONFIG: '', K8S_DATA_DIR: '/' }
    await expect(loadDataDir({ flags: [], environment })).rejects.toThrow(
      'cannot use K8S_DATA_DIR=/ in the environment',
    )
  })

  test('has a default', async () => {
    expect(await loadDataDir({ flags: [], environment: {} })).toBe('/var/lib/k8s')
  })
})

describe('a file is read as YAML by all who read it', () => {
  test.each([
    'data-dir: /srv/k8s',
    'data-dir:   /srv/k8s   # mine',
    'data-dir : /srv/k8s',
    '"data-dir": /srv/k8s',
    "'data-dir': '/srv/k8s'",
    '"data\\u002ddir": "/srv/\\x6b8s"',
    '  data-dir: /srv/k8s\n  v: 1',
    'data-dir:\n  /srv/k8s',
    'data-dir: >-\n  /srv/k8s',
    'data-dir: |-\n  /srv/k8s',
    'data-dir: &here /srv/k8s',
    'snapshot-dir: &there /srv/k8s\ndata-dir: *there',
    'snapshot-dir: &there /srv/k8s\ndata-dir: [*there]',
    '? data-dir\n: /srv/k8s',
    '{"data-dir": "/srv/k8s", "v": 1}',
    '{\n  "v": 1,\n  "data-dir": "/srv/k8s"\n}\n',
    '{data-dir: /srv/k8s}',
    '---\ndata-dir: /srv/k8s\n...\n',
    '%YAML 1.2\n---\ndata-dir: /srv/k8s',
    '\ufeffdata-dir: /srv/k8s',
    'data-dir: /srv/k8s\r\nv: 1\r\n',
    'data-dir: /srv/./x/../k8s/',
  ])('%j', async (file) => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-config-'))
    const path = join(directory.path, 'config.yaml')
    writeFileSync(path, file)
    const environment = { K8S_CONFIG: path }
    expect(await loadDataDir({ flags: [], environment })).toBe('/srv/k8s')
    expect((await load({ file })).dataDir).toBe('/srv/k8s')
  })

  test.each([
    ['data-dir: /a\ndata-dir: /b', 'Map keys must be unique'],
    ['data-dir: /a\n---\ndata-dir: /b', 'multiple documents'],
    ['{"data-dir": "/a"', 'not valid YAML'],
    ['data-dir: [/a, /b]', 'it is a list'],
    ['data-dir: {path: /a}', 'not a map'],
    ['data-dir: /a\ufffd', 'not written in UTF-8'],
  ])('%j is refused by all', async (file, reason) => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-config-'))
    const path = join(directory.path, 'config.yaml')
    writeFileSync(path, file)
    await expect(loadDataDir({ flags: [], environment: { K8S_CONFIG: path } })).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringContaining(reason),
    })
    expect(await refusal({ file })).toContain(reason)
  })
})

describe('this machine', () => {
  test('gives its name in lower case', () => {
    expect(thisHost.nodeName()).toBe(hostname().toLowerCase())
  })

  test('needs a name that a Node can have', async () => {
    const host = { ...testHost, nodeName: () => 'my_host' }
    // The machine gave it, and nobody wrote it: not the code of bad input, upon which systemd never tries again.
    await expect(load({ host })).rejects.toMatchObject({
      code: 'HOST_NAME',
      message:
        'cannot use the host name my_host as node-name: allowed is a DNS name of at most 63 characters: ' +
        'lower-case letters, digits, "-" and "."',
      remedy: 'give one with --node-name, or rename the machine',
    })
    expect((await load({ host, flags: ['--node-name=mine'] })).nodeName).toBe('mine')
  })
})

describe('variables that are no settings', () => {
  const warningsOf = async (environment: Readonly<Record<string, string>>) => {
    const warnings: string[] = []
    await load({ environment, warn: (line) => warnings.push(line) })
    return warnings
  }

  test('are told and passed over, with what was probably meant', async () => {
    expect(await warningsOf({ K8S_NODE_NAMES: 'secret' })).toEqual([
      'K8S_NODE_NAMES in the environment is no setting and is passed over; did you mean K8S_NODE_NAME?',
    ])
    expect(await warningsOf({ K8S_CONFG: '/x' })).toEqual([
      'K8S_CONFG in the environment is no setting and is passed over; did you mean K8S_CONFIG?',
    ])
  })

  test('of other tools take one line', async () => {
    const ansible = ['CLIENT_CERT', 'HOST', 'KUBECONFIG', 'PASSWORD', 'USERNAME', 'VERIFY_SSL']
    const environment = Object.fromEntries(ansible.map((name) => [`K8S_AUTH_${name}`, 'hunter2']))
    expect(await warningsOf({ K8S_AUTH_KUBECONFIG: '/x' })).toEqual([
      'K8S_AUTH_KUBECONFIG in the environment is no setting and is passed over',
    ])
    expect(await warningsOf(environment)).toEqual([
      'K8S_AUTH_CLIENT_CERT, K8S_AUTH_HOST, K8S_AUTH_KUBECONFIG, K8S_AUTH_PASSWORD, K8S_AUTH_USERNAME, 1 more in the environment are no settings and are passed over',
    ])
  })

  test('that are empty count as unset, and those of the launcher are its own', async () => {
    expect(
      await warningsOf({
        ...{ K8S_WHATEVER: '', K8S_PAYLOAD_DIR: '/x', K8S_NOTIFY_FD: '3', K8S_LAUNCHER: 'unpacked' },
        K8S_VERSION: 'v1.37.1',
      }),
    ).toEqual([])
  })
})

test('a file that the machine cannot read just now is no bad input', async () => {
  // Reading it ends with EIO, as on a disk that is broken or a share that is gone.
  const sources = { flags: flagsOf(['--config=/proc/self/mem']), environment: {}, host: testHost }
  await expect(loadConfig(sources)).rejects.toMatchObject({
    code: 'CONFIG_READ',
    message: 'cannot read the configuration file /proc/self/mem',
  })
})

test('a file that nobody named may be absent, one that somebody named not', async () => {
  await expect(
    loadConfig({ flags: flagsOf(['--config=/nonexistent/k8s.yaml']), environment: {}, host: testHost }),
  ).rejects.toThrow('cannot read the configuration file /nonexistent/k8s.yaml')
})
