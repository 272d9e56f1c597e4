import { X509Certificate } from 'node:crypto'
import { copyFileSync, mkdtempDisposableSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type LiveObject, type Manifest, objectPath } from '../../../src/api/objects.ts'
import {
  isOfOthers,
  metricsApi,
  metricsProblem,
  metricsServer,
  servedName,
  servesMetrics,
} from '../../../src/addons/metrics-server.ts'
import type { Api } from '../../../src/api/client.ts'
import { MetricsCertificate } from '../../../src/cluster/metrics-certificate.ts'
import { preparePki } from '../../../src/pki/pki.ts'

const options = { image: 'k8s.local/metrics-server:1', certificate: 'CERTIFICATE', key: 'KEY' }

function clientOf(objects: Readonly<Record<string, unknown>>): Api {
  const get = ({ kind }: Manifest) => Promise.resolve(objects[kind] as LiveObject | undefined)
  return { get } as unknown as Api
}

test('every object of metrics-server has a path at the API server', () => {
  const rbac = '/apis/rbac.authorization.k8s.io/v1'
  expect([...metricsServer(options), ...metricsApi({ authority: 'A' })].map(objectPath)).toEqual([
    '/api/v1/namespaces/kube-system/serviceaccounts/metrics-server',
    `${rbac}/clusterroles/system:metrics-server`,
    `${rbac}/clusterrolebindings/system:metrics-server`,
    `${rbac}/clusterrolebindings/metrics-server:system:auth-delegator`,
    `${rbac}/namespaces/kube-system/rolebindings/metrics-server-auth-reader`,
    `${rbac}/clusterroles/system:aggregated-metrics-reader`,
    '/api/v1/namespaces/kube-system/secrets/metrics-server-tls',
    '/apis/apps/v1/namespaces/kube-system/deployments/metrics-server',
    '/api/v1/namespaces/kube-system/services/metrics-server',
    '/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io',
  ])
})

test('nobody is taken at his word: neither metrics-server by the API server, nor a kubelet by metrics-server', () => {
  const text = JSON.stringify([...metricsServer(options), ...metricsApi({ authority: 'A' })])
  expect(text).toContain(`"caBundle":"${Buffer.from('A').toString('base64')}"`)
  expect(text).toContain('--kubelet-certificate-authority=')
  expect(text.replace('"insecureSkipTLSVerify":false', '')).not.toMatch(/insecure/i)
})

test('it may read what it tells of, and nothing else', () => {
  const roles = metricsServer(options).filter(({ kind }) => kind === 'ClusterRole')
  const rules = roles.flatMap(({ rules }) => rules as { resources: string[]; verbs: string[] }[])
  expect(new Set(rules.flatMap(({ verbs }) => verbs))).toEqual(new Set(['get', 'list', 'watch']))
  expect(new Set(rules.flatMap(({ resources }) => resources))).toEqual(
    new Set(['nodes/metrics', 'nodes', 'pods']),
  )
})

describe('what is said of it', () => {
  const ready = { subsets: [{ addresses: [{ ip: '10.244.0.5' }] }] }
  test.each([
    ['there is no Service', undefined, false],
    ['no pod is ready', { subsets: [{ notReadyAddresses: [{ ip: '10.244.0.5' }] }] }, false],
    ['the Service has no pod', {}, false],
    ['a pod is ready', ready, true],
  ])('its group of the API is there only when it serves: %s', async (_, endpoints, expected) => {
    expect(await servesMetrics(clientOf({ Endpoints: endpoints }))).toBe(expected)
  })

  const metadata = { managedFields: [{ manager: 'k8s', operation: 'Apply' }] }
  const withCondition = (condition: object) => ({
    metadata,
    status: { conditions: [{ type: 'Other' }, condition] },
  })
  test.each([
    ['no group', undefined, 'none of its pods is ready'],
    ['not asked yet', { metadata }, 'the API server has not asked it yet'],
    ['not reached', withCondition({ type: 'Available', status: 'False', message: 'no route' }), 'no route'],
    ['reached', withCondition({ type: 'Available', status: 'True', message: 'passed' }), undefined],
  ])('what does not work: %s', async (_, apiService, expected) => {
    expect(await metricsProblem(clientOf({ APIService: apiService }))).toBe(expected)
  })
})

test('a group of the API that somebody else serves is left to him', async () => {
  const of = (manager: string) => ({ metadata: { managedFields: [{ manager, operation: 'Apply' }] } })
  expect(await isOfOthers(clientOf({}))).toBe(false)
  expect(await isOfOthers(clientOf({ APIService: of('k8s') }))).toBe(false)
  const others = clientOf({ APIService: of('helm') })
  expect(await isOfOthers(others)).toBe(true)
  expect(await metricsProblem(others)).toMatch(/is not of this add-on, and does not work \(.+\): mend/)
})

describe('its certificate', () => {
  const now = new Date('2027-06-01')
  const pkiIn = (dir: string) =>
    preparePki({
      ...{ dir, now, nodeName: 'one', nodeIp: '192.0.2.1', advertiseAddress: '192.0.2.1', tlsSan: [] },
      ...{ bindAddress: '0.0.0.0', serviceCidr: '10.96.0.0/12', clusterDomain: 'cluster.local' },
    })
  const kept = ({ certificate, key }: { certificate: string; key: string }) => {
    const base64 = (text: string) => Buffer.from(text).toString('base64')
    return clientOf({ Secret: { data: { 'tls.crt': base64(certificate), 'tls.key': base64(key) } } })
  }
  const none = clientOf({})

  test('is of the authority that the group of the API names, and for one name', async () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-metrics-'))
    await pkiIn(directory.path)
    const issued = await new MetricsCertificate(directory.path).current(none, now)
    const certificate = new X509Certificate(issued.certificate)
    expect(certificate.checkIssued(new X509Certificate(issued.authority))).toBe(true)
    expect(certificate.subjectAltName).toBe(`DNS:${servedName}`)
  })

  test('is that of the cluster as long as it is good, whichever server looks', async () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-metrics-'))
    await pkiIn(directory.path)
    const one = new MetricsCertificate(directory.path)
    const first = await one.current(none, now)
    expect(await one.current(none, now)).toEqual(first)
    const other = () => new MetricsCertificate(directory.path)
    expect(await other().current(kept(first), now)).toEqual(first)
    const yearLater = new Date('2028-05-01')
    expect((await other().current(kept(first), yearLater)).certificate).not.toBe(first.certificate)
    expect((await one.current(kept(first), yearLater)).certificate).not.toBe(first.certificate)
  })

  test('is looked at again after an hour, when the clock was set, and when the authority is another one', async () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-metrics-'))
    using elsewhere = mkdtempDisposableSync(join(tmpdir(), 'k8s-metrics-'))
    const [pki, other] = await Promise.all([pkiIn(directory.path), pkiIn(elsewhere.path)])
    const kept = new MetricsCertificate(directory.path)
    const first = await kept.current(none, now)
    const later = (hours: number) => kept.current(none, new Date(now.getTime() + hours * 3_600_000))
    expect(await later(0.9)).toBe(first)
    for (const hours of [1.1, -2]) {
      const again = await later(hours)
      expect([again === first, again.certificate]).toEqual([false, first.certificate])
    }
    const [from, to] = [other.authorities.server, pki.authorities.server]
    copyFileSync(from.certFile, to.certFile)
    copyFileSync(from.keyFile, to.keyFile)
    expect((await later(-2)).authority).toBe(readFileSync(from.certFile, 'utf8'))
  })

  test.each([
    ['damaged', { certificate: 'x', key: 'y' }],
    ['empty', { certificate: '', key: '' }],
  ])('is issued anew where that of the cluster is %s', async (_, pair) => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-metrics-'))
    await pkiIn(directory.path)
    const issued = await new MetricsCertificate(directory.path).current(kept(pair), now)
    expect(issued.certificate).toContain('BEGIN CERTIFICATE')
  })

  test('of another authority is not taken', async () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-metrics-'))
    using elsewhere = mkdtempDisposableSync(join(tmpdir(), 'k8s-metrics-'))
    await Promise.all([pkiIn(directory.path), pkiIn(elsewhere.path)])
    const foreign = await new MetricsCertificate(elsewhere.path).current(none, now)
    const issued = await new MetricsCertificate(directory.path).current(kept(foreign), now)
    expect(issued.certificate).not.toBe(foreign.certificate)
  })
})
