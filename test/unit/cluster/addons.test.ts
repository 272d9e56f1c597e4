import { describe, expect, test } from 'vitest'
import { Inventory } from '../../../src/addons/inventory.ts'
import type { Api } from '../../../src/api/client.ts'
import { objectPath } from '../../../src/api/objects.ts'
import { joining } from '../../../src/addons/joining.ts'
import { publishedServer } from '../../../src/addons/published-server.ts'
import { coredns } from '../../../src/addons/coredns.ts'

const options = {
  image: 'k8s.local/coredns:1',
  clusterDns: '10.96.0.10',
  clusterDomain: 'cluster.local',
  forward: true,
}

test('every object of CoreDNS has a path at the API server', () => {
  expect(coredns(options).map(objectPath)).toEqual([
    '/api/v1/namespaces/kube-system/serviceaccounts/coredns',
    '/apis/rbac.authorization.k8s.io/v1/clusterroles/system:coredns',
    '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:coredns',
    '/api/v1/namespaces/kube-system/configmaps/coredns',
    '/apis/apps/v1/namespaces/kube-system/deployments/coredns',
    '/api/v1/namespaces/kube-system/services/kube-dns',
  ])
})

test.each([true, false])('forwards foreign names only where there is somebody to ask: %s', (forward) => {
  const configuration = coredns({ ...options, forward }).find(({ kind }) => kind === 'ConfigMap')
  expect(JSON.stringify(configuration).includes('forward . /etc/resolv.conf')).toBe(forward)
})

test('its Service has an address of each family where the cluster has both', () => {
  const specOf = (given: Parameters<typeof coredns>[0]) =>
    coredns(given).find(({ kind }) => kind === 'Service')?.['spec']
  expect(specOf(options)).not.toHaveProperty('ipFamilyPolicy')
  expect(specOf({ ...options, otherClusterDns: 'fd00:96::a' })).toMatchObject({
    clusterIP: '10.96.0.10',
    clusterIPs: ['10.96.0.10', 'fd00:96::a'],
    ipFamilyPolicy: 'PreferDualStack',
  })
})

test.for([
  ['nothing has been published', undefined, ['192.0.2.1'], 'https://192.0.2.2:6443'],
  [
    'it is one of the servers',
    'https://192.0.2.1:6443',
    ['192.0.2.2', '192.0.2.1'],
    'https://192.0.2.1:6443',
  ],
  ['it is so with IPv6', 'https://[fd00::1]:6443', ['fd00::1'], 'https://[fd00::1]:6443'],
  ['it has gone', 'https://192.0.2.1:6443', ['192.0.2.2'], 'https://192.0.2.2:6443'],
] as const)('which server cluster-info names: %s', async ([, named, addresses, expected]) => {
  const [info] = joining({
    ...{ authorities: [], kubernetesVersion: 'v1.37.1', clusterDomain: 'a', networkBackend: 'vxlan' },
    ...{ clusterCidr: '10.244.0.0/16', serviceCidr: '10.96.0.0/12', kubeletConfig: '' },
    server: named ?? '',
    networkPolicy: false,
  })
  const get = ({ kind }: { kind: string }) =>
    Promise.resolve(
      kind === 'ConfigMap'
        ? named && info
        : { subsets: [{ addresses: addresses.map((ip) => ({ ip })) }, {}] },
    )
  const client = { get } as unknown as Api
  expect(await publishedServer(client, 'https://192.0.2.2:6443')).toBe(expected)
})

describe('the inventory', () => {
  const deployment = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'coredns', namespace: 'kube-system' },
  }
  const role = {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: 'system:coredns' },
  }
  const read = async (objects: unknown) => {
    const get = () => Promise.resolve({ data: { objects: JSON.stringify(objects) } })
    return (await Inventory.read({ get } as unknown as Api)).objects
  }

  test('is what was written', async () => {
    expect(await read([deployment, role])).toEqual([deployment, role])
  })

  // Whoever may write ConfigMaps would have us remove by another path what he could not remove himself.
  test.each([
    { ...deployment, metadata: { ...deployment.metadata, name: 'coredns?x=1' } },
    { ...deployment, metadata: { ...deployment.metadata, name: 'x/../coredns' } },
    { ...deployment, metadata: { ...deployment.metadata, name: '.' } },
    { ...deployment, metadata: { ...deployment.metadata, name: 'coredn%73' } },
    { ...deployment, metadata: { name: 'coredns', namespace: 'x/../kube-system' } },
    { ...deployment, apiVersion: 'x/../apps/v1' },
    { ...deployment, apiVersion: '../apis/apps/v1' },
    { ...deployment, metadata: 7 },
    null,
  ])('is none where a name could lead to another object: %j', async (damaged) => {
    expect(await read([deployment, damaged])).toBeUndefined()
  })
})
