import { mkdirSync, mkdtempDisposableSync, realpathSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { apiserverArguments, authenticationConfig } from '../../../src/components/apiserver.ts'
import { flags } from '../../../src/components/arguments.ts'
import { controllerManagerArguments } from '../../../src/components/controller-manager.ts'
import { kubeletArguments } from '../../../src/components/kubelet.ts'
import { kubeProxyArguments } from '../../../src/components/kube-proxy.ts'
import { serverAccess } from '../../../src/components/node-access.ts'
import type { Config } from '../../../src/config/config.ts'
import { loadConfig } from '../../../src/config/load.ts'
import { paths } from '../../../src/config/paths.ts'
import type { Payload } from '../../../src/payload/payload.ts'
import { pkiFiles } from '../../../src/pki/pki.ts'

const pki = pkiFiles('/data/pki')
const payload = { version: { gitVersion: 'v1.37.1+k8s.1' } } as Payload
const addresses = () => ({ nodeIp: '192.0.2.7', advertiseAddress: '192.0.2.8' })

function configOf(...given: { name: string; text: string }[]): Promise<Config> {
  return loadConfig({
    flags: [{ name: 'data-dir', text: '/data' }, { name: 'node-name', text: 'n1' }, ...given],
    environment: {},
  })
}

describe('flags', () => {
  test('leave undefined ones out and let the passed-through come last', () => {
    expect(flags({ a: 1, b: undefined, c: false }, ['a=2'])).toEqual(['--a=1', '--c=false', '--a=2'])
  })
})

describe('kube-apiserver', () => {
  test('authorizes by Node and RBAC, encrypts Secrets and asks the datastore at its socket', async () => {
    const config = await configOf()
    const args = apiserverArguments({
      ...{ config, pki, addresses, paths: paths(config) },
      storageFlags: { 'etcd-servers': 'unix:///data/run/datastore.sock' },
    })
    expect(args).toContain('--authorization-mode=Node,RBAC')
    expect(args).toContain('--enable-admission-plugins=NodeRestriction')
    expect(args).toContain('--encryption-provider-config=/data/pki/encryption-config.yaml')
    expect(args).toContain('--etcd-servers=unix:///data/run/datastore.sock')
    expect(args).toContain('--advertise-address=192.0.2.8')
  })

  test('lets nobody in without credentials but to health and to cluster-info', () => {
    const clusterInfo = '/api/v1/namespaces/kube-public/configmaps/cluster-info'
    expect(JSON.parse(authenticationConfig()).anonymous).toEqual({
      enabled: true,
      conditions: ['/healthz', '/livez', '/readyz', clusterInfo].map((path) => ({ path })),
    })
  })
})

describe('kube-controller-manager', () => {
  test('gives nodes ranges of the size that the first one has from the start', async () => {
    const config = await configOf({ name: 'cluster-cidr', text: '10.7.0.0/20' })
    const args = controllerManagerArguments({ config, paths: paths(config), pki, payload })
    expect(args).toContain('--cluster-cidr=10.7.0.0/20')
    expect(args).toContain('--node-cidr-mask-size=24')
  })

  test('has a size for each family where there are both, and no other', async () => {
    const config = await configOf(
      { name: 'cluster-cidr', text: '10.7.0.0/20,fd07::/56' },
      { name: 'service-cidr', text: '10.8.0.0/20,fd08::/112' },
    )
    const args = controllerManagerArguments({ config, paths: paths(config), pki, payload })
    expect(args).toContain('--cluster-cidr=10.7.0.0/20,fd07::/56')
    expect(args.filter((arg) => arg.includes('mask-size'))).toEqual([
      '--node-cidr-mask-size-ipv4=24',
      '--node-cidr-mask-size-ipv6=64',
    ])
  })

  test.each([
    ['single', 'v1.37.1+k8s.1', false],
    ['ha', 'v1.37.1+k8s.1', true],
    ['ha', 'v1.36.4+k8s.1', true],
    // It has no such feature, and would not start.
    ['ha', 'v1.34.4+k8s.1', false],
  ])('of server-mode %s and %s, it gives its Lease back: %s', async (mode, gitVersion, is) => {
    const config = await configOf({ name: 'server-mode', text: mode })
    const given = { version: { gitVersion } } as Payload
    const args = controllerManagerArguments({ config, paths: paths(config), pki, payload: given })
    expect(args.some((arg) => arg.includes('ReleaseLeaderElectionLockOnExit=true'))).toBe(is)
  })

  test('signs for clients and for servers with an authority each, and for nobody with any usage', async () => {
    const config = await configOf({ name: 'v', text: '0' })
    const args = controllerManagerArguments({ config, paths: paths(config), pki, payload })
    const files = { client: pki.authorities.client.certFile, server: pki.authorities.server.certFile }
    expect(args.filter((arg) => /^--cluster-signing-.*-cert-file=/.test(arg)).toSorted()).toEqual([
      `--cluster-signing-kube-apiserver-client-cert-file=${files.client}`,
      `--cluster-signing-kubelet-client-cert-file=${files.client}`,
      `--cluster-signing-kubelet-serving-cert-file=${files.server}`,
    ])
  })
})

const nodeOf = (config: Config) => ({
  ...{ config, addresses, paths: paths(config) },
  access: serverAccess(config, paths(config)),
})

describe('kubelet', () => {
  test('joins labels into one flag and passes the verbosity on', async () => {
    const config = await configOf(
      { name: 'node-label', text: 'a=b' },
      { name: 'node-label', text: 'c=d' },
      { name: 'v', text: '5' },
    )
    const args = kubeletArguments(nodeOf(config))
    expect(args).toContain('--node-labels=a=b,c=d')
    expect(args).toContain('--v=5')
    expect(args).toContain('--node-ip=192.0.2.7')
    const both = () => ({ ...addresses(), otherNodeIp: '2001:db8::7' })
    expect(kubeletArguments({ ...nodeOf(config), addresses: both })).toContain(
      '--node-ip=192.0.2.7,2001:db8::7',
    )
  })
})

test('the kubelet is told its directory as the kernel lists it', async () => {
  using directory = mkdtempDisposableSync(join(realpathSync(tmpdir()), 'k8s-arguments-'))
  mkdirSync(join(directory.path, 'kubelet'))
  symlinkSync(join(directory.path, 'kubelet'), join(directory.path, 'link'))
  const config = await configOf({ name: 'kubelet-root-dir', text: join(directory.path, 'link') })
  const args = kubeletArguments(nodeOf(config))
  expect(args).toContain(`--root-dir=${directory.path}/kubelet`)
})

describe('kube-proxy', () => {
  const context = async (given: { can: boolean }, ...settings: { name: string; text: string }[]) => {
    const config = await configOf(...settings)
    const { can } = given
    return {
      ...{ config, paths: paths(config) },
      choices: { proxyMode: 'nftables', cgroupDriver: 'cgroupfs' } as const,
      host: {
        canSetConntrack: can,
        capabilities: { netAdmin: true, sysAdmin: true, sysResource: can },
      },
    }
  }

  test('listens on loopback alone', async () => {
    const args = kubeProxyArguments(await context({ can: true }))
    expect(args).toContain('--healthz-bind-address=127.0.0.1:10256')
    expect(args).toContain('--metrics-bind-address=127.0.0.1:10249')
    expect(args.filter((argument) => argument.startsWith('--conntrack'))).toEqual([])
  })

  test('leaves limits as they are that it cannot write', async () => {
    const args = kubeProxyArguments(await context({ can: false }))
    expect(args).toContain('--conntrack-max-per-core=0')
    expect(args).toContain('--oom-score-adj=0')
  })

  test('takes what a user passes through', async () => {
    const given = await context({ can: true }, { name: 'kube-proxy-arg', text: 'nodeport-addresses=primary' })
    expect(kubeProxyArguments(given).at(-1)).toBe('--nodeport-addresses=primary')
  })
})
