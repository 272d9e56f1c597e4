import { expect, test } from 'vitest'
import { HostFiles } from '../../../../src/node/facts/host-files.ts'
import { isStillThere, readPortMappings } from '../../../../src/node/firewall/port-mappings.ts'
import { renderCniConfig } from '../../../../src/node/render/cni-config.ts'
import { hostTree } from '../host-tree.ts'

const config = renderCniConfig({
  ...{ podCidr: '10.244.0.0/24', backend: 'nftables', ipamDir: '/data/run/cni', mtu: undefined },
})
const result = { cniVersion: '1.0.0', ips: [{ address: '10.244.0.5/24' }] }
const portMappings = [{ hostPort: 8080, containerPort: 80, protocol: 'tcp', hostIP: '' }]

/** As libcni writes it (cniCacheV1). */
const cached = {
  kind: 'cniCacheV1',
  containerId: 'abc',
  config: Buffer.from(config).toString('base64'),
  ifName: 'eth0',
  networkName: 'k8s',
  netns: '/data/run/containerd/netns/cni-1',
  cniArgs: [
    ['IgnoreUnknown', '1'],
    ['K8S_POD_NAMESPACE', 'default'],
    ['K8S_POD_NAME', 'web'],
  ],
  capabilityArgs: { portMappings },
  result,
}

const path = '/var/lib/cni/results/k8s-abc-eth0'
const namespace = { [cached.netns]: '' }

function read(files: Readonly<Record<string, string>>) {
  return readPortMappings(new HostFiles(hostTree(files)))
}

test('a pod with ports of the node is what portmap is called with', () => {
  const [mapping, ...others] = read({ ...namespace, [path]: JSON.stringify(cached) })
  expect(others).toEqual([])
  expect(mapping).toMatchObject({
    containerId: 'abc',
    pod: 'default/web',
    families: [4],
    environment: {
      CNI_CONTAINERID: 'abc',
      CNI_NETNS: '/data/run/containerd/netns/cni-1',
      CNI_IFNAME: 'eth0',
      CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web',
    },
  })
  expect(JSON.parse(mapping?.request ?? '')).toEqual({
    type: 'portmap',
    backend: 'nftables',
    snat: true,
    capabilities: { portMappings: true },
    cniVersion: '1.0.0',
    name: 'k8s',
    runtimeConfig: { portMappings },
    prevResult: result,
  })
})

test('ports are mapped in the families of the pod, unless they are of one address of the node', () => {
  const ips = [{ address: '10.244.0.5/24' }, { address: 'fd00::5/64' }]
  const families = (...hostIPs: readonly string[]) => {
    const mappings = hostIPs.map((hostIP) => ({ hostPort: 8080, containerPort: 80, hostIP }))
    const text = JSON.stringify({ ...cached, result: { ips }, capabilityArgs: { portMappings: mappings } })
    return read({ ...namespace, [path]: text })[0]?.families
  }
  expect(families('')).toEqual([4, 6])
  expect(families('192.0.2.1')).toEqual([4])
  expect(families('fd00::9')).toEqual([6])
  expect(families('192.0.2.1', '')).toEqual([4, 6])
})

test('pods without ports, of another network, and without a namespace of their own are none', () => {
  const without = JSON.stringify({ ...cached, capabilityArgs: {} })
  expect(read({ ...namespace, [path]: without })).toEqual([])
  expect(read({ ...namespace, '/var/lib/cni/results/podman-abc-eth0': JSON.stringify(cached) })).toEqual([])
  expect(read({ [path]: JSON.stringify(cached) })).toEqual([])
})

test('what was kept in part or is damaged ends nothing', () => {
  const { config: _config, ...rest } = cached
  expect(read({ ...namespace, [path]: JSON.stringify(rest) })[0]?.request).toBeUndefined()
  expect(read({ ...namespace, [path]: '{"kind":"cniCa' })).toEqual([])
})

test('a pod that has ended meanwhile is known by what libcni removes', () => {
  const root = hostTree({ ...namespace, [path]: JSON.stringify(cached) })
  const [mapping] = readPortMappings(new HostFiles(root))
  if (mapping === undefined) return expect.fail('there is none')
  expect(isStillThere(new HostFiles(root), mapping)).toBe(true)
  expect(isStillThere(new HostFiles(hostTree(namespace)), mapping)).toBe(false)
})
