import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { X509Certificate } from 'node:crypto'
import { expect, onTestFinished, test } from 'vitest'
import { freePort } from '../../../free-port.ts'
import { discover, type DiscoveryOptions } from '../../../../src/cluster/join/discovery.ts'
import { refusalOfSkew } from '../../../../src/cluster/join/skew.ts'
import { testAuthority } from '../../datastore/test-certificates.ts'
import { FakeCluster, token } from './fake-cluster.ts'

function joinTo(cluster: FakeCluster, changed: Partial<DiscoveryOptions> = {}) {
  return discover({
    ...{ server: cluster.url, token, caHash: cluster.caHash, nodeName: 'a' },
    ...{ version: 'v1.37.1+k8s.1', signal: new AbortController().signal, ...changed },
  })
}

const parsed = (pem: string) => new X509Certificate(pem).raw.toString('hex')

test('whoever has the token learns the authorities and what is fixed of the cluster, and shows the token to its servers alone', async () => {
  const cluster = await new FakeCluster().start()
  const { serverCa, clientCas, cluster: settings } = await joinTo(cluster)
  expect([serverCa, clientCas].map(parsed)).toEqual(
    [cluster.authority.cert, cluster.clientAuthority.cert].map(parsed),
  )
  expect(settings).toEqual({
    clusterCidr: '10.7.0.0/16',
    serviceCidr: '10.8.0.0/16',
    clusterDns: '10.8.0.10',
    clusterDomain: 'example.test',
  })
  const info = '/api/v1/namespaces/kube-public/configmaps/cluster-info'
  expect(cluster.asked.slice(0, 4)).toEqual([
    info,
    info,
    '/version with the token',
    '/api/v1/nodes/a with the token',
  ])
})

test('ranges of both families are learned as they are', async () => {
  const cluster = await new FakeCluster().start()
  const both = { podSubnet: '10.7.0.0/16,fd07::/56', serviceSubnet: '10.8.0.0/16,fd08::/112' }
  cluster.networking = { ...both, dnsDomain: 'example.test' }
  expect((await joinTo(cluster)).cluster).toMatchObject({
    clusterCidr: both.podSubnet,
    serviceCidr: both.serviceSubnet,
  })
})

test('a cluster of one authority has it for both', async () => {
  const cluster = await new FakeCluster().start()
  cluster.bundle = () => cluster.authority.cert
  const { serverCa, clientCas } = await joinTo(cluster)
  expect(clientCas).toBe(serverCa)
})

test.each<[string, (cluster: FakeCluster) => void, Partial<DiscoveryOptions>, string, RegExp]>([
  [
    'a signature by another secret',
    (c) => void (c.signer = { ...token, secret: 'f'.repeat(16) }),
    {},
    'JOIN_SIGNATURE',
    /not signed with the secret of the token abcdef/,
  ],
  [
    'a signature of no algorithm',
    (c) => void (c.header = { ...c.header, alg: 'none' }),
    {},
    'JOIN_SIGNATURE',
    /not signed/,
  ],
  [
    "a signature by another token's name",
    (c) => void (c.header = { ...c.header, kid: 'fedcba' }),
    {},
    'JOIN_SIGNATURE',
    /not signed/,
  ],
  [
    'no signature',
    (c) => void (c.signer = undefined),
    {},
    'JOIN_TOKEN_UNKNOWN',
    /does not know the token abcdef, or that has expired/,
  ],
  [
    'a hash of another authority',
    () => {},
    { caHash: 'a'.repeat(64) },
    'JOIN_REFUSED',
    /the token is for sha256:a{64}/,
  ],
  ['no authority', (c) => void (c.bundle = () => ''), {}, 'JOIN_REFUSED', /no authorities that can be read/],
  [
    'a damaged authority',
    (c) => void (c.bundle = () => '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'),
    {},
    'JOIN_REFUSED',
    /no authorities that can be read/,
  ],
  [
    'a hundred authorities',
    (c) => void (c.bundle = () => c.authority.cert.repeat(100)),
    {},
    'JOIN_REFUSED',
    /no authorities that can be read/,
  ],
  [
    'a cluster-info for nobody',
    (c) => void (c.isOpen = false),
    {},
    'JOIN_TOKEN_UNKNOWN',
    /there is no token to join with/,
  ],
  [
    'an expired token',
    (c) => void (c.isTokenGood = false),
    {},
    'JOIN_TOKEN_UNKNOWN',
    /does not take the token abcdef: it has expired/,
  ],
  ['a name in use', (c) => void c.nodes.add('a'), {}, 'JOIN_REFUSED', /has a Node a already/],
  [
    'older servers',
    (c) => void (c.version = 'v1.36.4'),
    {},
    'JOIN_REFUSED',
    /this machine has v1.37.1\+k8s.1, and the servers v1.36.4/,
  ],
  [
    'a clock in the past',
    () => {},
    { now: new Date('1970-01-02') },
    'JOIN_CLOCK',
    /by the clock of this machine, 1970-01-02T.*not valid yet/,
  ],
  ['a clock in the future', () => {}, { now: new Date('2101-01-01') }, 'JOIN_CLOCK', /have expired/],
  [
    'a range that is none',
    (c) => void (c.networking = { podSubnet: '10.7.0.0/40' }),
    {},
    'JOIN_REFUSED',
    /it says "10.7.0.0\/40" for cluster-cidr; allowed is/,
  ],
  [
    'two ranges of one family',
    (c) => void (c.networking = { podSubnet: '10.7.0.0/16,10.9.0.0/16' }),
    {},
    'JOIN_REFUSED',
    /it says "10.7.0.0\/16,10.9.0.0\/16" for cluster-cidr; both are IPv4/,
  ],
  ['no DNS', (c) => void (c.kubelet = {}), {}, 'JOIN_REFUSED', /it says nothing for cluster-dns/],
  ['a server in trouble', (c) => void (c.status = 503), {}, 'JOIN_ANSWER', /answers 503/],
])('%s is refused, and with a remedy', async (_, change, options, code, message) => {
  const cluster = await new FakeCluster().start()
  change(cluster)
  const error = await joinTo(cluster, options).catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) })
  expect(String((error as Error).message)).not.toContain(token.secret)
})

test('a server that starts is no refusal: it knows no tokens yet', async () => {
  const cluster = await new FakeCluster().start()
  Object.assign(cluster, { isOpen: false, isReady: false })
  await expect(joinTo(cluster)).rejects.toMatchObject({
    code: 'JOIN_ANSWER',
    message: expect.stringContaining('is not ready: /readyz answers 500'),
  })
})

test('who repeats a signed cluster-info, and has no certificate of its authority, is told from the servers, and is shown no token', async () => {
  const cluster = await new FakeCluster().start(
    testAuthority('other').issue({ usage: 'server', addresses: ['127.0.0.1'] }),
  )
  await expect(joinTo(cluster)).rejects.toMatchObject({
    code: 'JOIN_REFUSED',
    message: expect.stringContaining('its certificate is not of the authority'),
  })
  expect(cluster.asked.filter((line) => line.includes('token'))).toEqual([])
})

test('an answer without end is given up, and a port without a listener is no refusal', async () => {
  const endless = createServer(
    testAuthority().issue({ usage: 'server', addresses: ['127.0.0.1'] }),
    (_, answer) => {
      const more = () => answer.write('x'.repeat(1 << 16)) && setImmediate(more)
      answer.on('drain', more)
      more()
    },
  ).listen(0, '127.0.0.1')
  await once(endless, 'listening')
  onTestFinished(() => {
    endless.close()
    endless.closeAllConnections()
  })
  const cluster = new FakeCluster()
  cluster.port = (endless.address() as AddressInfo).port
  await expect(joinTo(cluster)).rejects.toMatchObject({ code: 'HTTP_SIZE' })
  cluster.port = await freePort()
  await expect(joinTo(cluster)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
})

test.each<[string, string, boolean]>([
  ['v1.37.1', 'v1.37.4', true],
  ['v1.37.9', 'v1.37.0', true],
  ['v1.34.0', 'v1.37.1', true],
  ['v1.33.9', 'v1.37.1', false],
  ['v1.38.0', 'v1.37.1', false],
  ['v1.37.1', 'v2.0.0', false],
  ['v1.37.1', '', false],
])('a kubelet %s and servers %s: %s', (kubelet, server, may) => {
  expect(refusalOfSkew({ kubelet, server }) === undefined).toBe(may)
})
