import { expect, test } from 'vitest'
import { manifestPath } from '../../../src/addons/manifest.ts'
import { coredns } from '../../../src/addons/coredns.ts'

const options = {
  image: 'k8s.local/coredns:1',
  clusterDns: '10.96.0.10',
  clusterDomain: 'cluster.local',
  forward: true,
}

test('every object of CoreDNS has a path at the API server', () => {
  expect(coredns(options).map(manifestPath)).toEqual([
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
