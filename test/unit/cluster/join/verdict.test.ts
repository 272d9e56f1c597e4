import { expect, test } from 'vitest'
import { parseRange, type Range } from '../../../../src/base/address.ts'
import {
  type Asked,
  type Known,
  promisesLimit,
  signers,
  type Verdict,
  verdictOn,
} from '../../../../src/cluster/join/verdict.ts'
import { readCertificateRequest } from '../../../../src/pki/certificate-request.ts'
import {
  address,
  certificateRequest,
  dnsName,
  newKeys,
  nodeSubject,
  type RequestParts,
} from '../../../fixtures/certificate-request.ts'

const serviceRange = parseRange('10.96.0.0/12') as Range

const known: Known = {
  reserved: {
    names: new Set(['kubernetes', 'kubernetes.default.svc', 'server-1', 'api.example.com']),
    addresses: new Set(['10.0.0.1', 'fd00::1']),
    serviceRanges: [serviceRange],
    clusterDomain: 'cluster.local',
  },
  nodes: new Map([
    ['server-1', ['10.0.0.1', 'server-1']],
    ['a', ['10.0.0.2', 'fd00::2', 'a']],
    ['liar', ['10.0.0.3', '10.0.0.2', '10.0.0.1', '10.96.0.1', '127.0.0.1']],
  ]),
  promised: new Map([['promised', 'the hash of another key']]),
}

const bootstrapper = {
  signer: signers.client,
  username: 'system:bootstrap:abcdef',
  groups: ['system:bootstrappers', 'system:bootstrappers:kubeadm:default-node-token', 'system:authenticated'],
  usages: ['digital signature', 'client auth'],
}

function node(name: string) {
  return {
    signer: signers.serving,
    username: `system:node:${name}`,
    groups: ['system:nodes', 'system:authenticated'],
    usages: ['digital signature', 'server auth'],
  }
}

function judge(who: Omit<Asked, 'request'>, parts: RequestParts | string, of: Partial<Known> = {}): Verdict {
  const request = typeof parts === 'string' ? parts : certificateRequest(parts)
  return verdictOn({ ...who, request }, { ...known, ...of })
}

test('a bootstrapper becomes a Node whose name nobody has', () => {
  expect(judge(bootstrapper, { subject: nodeSubject('b') })).toMatchObject({ kind: 'approve', nodeName: 'b' })
  const usages = [...bootstrapper.usages, 'key encipherment']
  expect(judge({ ...bootstrapper, usages }, { subject: nodeSubject('b') })).toMatchObject({ kind: 'approve' })
})

test('the key to which a name is promised gets it again', () => {
  const keys = newKeys()
  const request = certificateRequest({ subject: nodeSubject('promised'), keys })
  const promised = new Map([['promised', readCertificateRequest(request).keyHash]])
  expect(judge(bootstrapper, request, { promised })).toMatchObject({ kind: 'approve' })
  expect(judge(bootstrapper, request)).toMatchObject({ kind: 'deny', reason: 'NameInUse' })
})

test.for<[string, RequestParts | string, Partial<Asked>, string]>([
  ['in use', { subject: nodeSubject('a') }, {}, 'NameInUse'],
  ['of a server', { subject: nodeSubject('server-1') }, {}, 'NameReserved'],
  ['of the API server', { subject: nodeSubject('api.example.com') }, {}, 'NameReserved'],
  ['of a Service', { subject: nodeSubject('x.default.svc') }, {}, 'NameReserved'],
  ['of the cluster', { subject: nodeSubject('x.cluster.local') }, {}, 'NameReserved'],
  ['the domain', { subject: nodeSubject('cluster.local') }, {}, 'NameReserved'],
  ['no name', { subject: nodeSubject('') }, {}, 'Subject'],
  ['no Node name', { subject: nodeSubject('A_b') }, {}, 'Subject'],
  ['a path', { subject: nodeSubject('../a') }, {}, 'Subject'],
  ['a long name', { subject: nodeSubject('a'.repeat(64)) }, {}, 'Subject'],
  ['twice a Node', { subject: [['O', 'system:nodes'], ...nodeSubject('b')] }, {}, 'Subject'],
  [
    'masters',
    {
      subject: [
        ['O', 'system:nodes,system:masters'],
        ['CN', 'system:node:b'],
      ],
    },
    {},
    'Subject',
  ],
  ['no group', { subject: [['CN', 'system:node:b']] }, {}, 'Subject'],
  ['alternative names', { subject: nodeSubject('b'), alternatives: [dnsName('b')] }, {}, 'AlternativeNames'],
  ['a server', { subject: nodeSubject('b') }, { usages: ['digital signature', 'server auth'] }, 'Usages'],
  ['both', { subject: nodeSubject('b') }, { usages: [...bootstrapper.usages, 'server auth'] }, 'Usages'],
  [
    'an authority',
    { subject: nodeSubject('b') },
    { usages: [...bootstrapper.usages, 'cert sign'] },
    'Usages',
  ],
  ['no usages', { subject: nodeSubject('b') }, { usages: [] }, 'Usages'],
  ['rubbish', 'rubbish', {}, 'Malformed'],
])('a bootstrapper does not get the certificate of what is %s', ([, parts, other, reason]) => {
  expect(judge({ ...bootstrapper, ...other }, parts)).toMatchObject({ kind: 'deny', reason })
})

test('names are not promised without end', () => {
  const promised = new Map(Array.from({ length: promisesLimit }, (_, index) => [`node-${index}`, 'a hash']))
  expect(judge(bootstrapper, { subject: nodeSubject('b') }, { promised })).toMatchObject({
    reason: 'TooMany',
  })
})

test('what is for others to decide is left to them', () => {
  const subject = nodeSubject('b')
  for (const other of [
    { ...bootstrapper, groups: ['system:bootstrappers', 'system:bootstrappers:others'] },
    { ...bootstrapper, signer: 'kubernetes.io/kube-apiserver-client' },
    { ...bootstrapper, signer: signers.serving },
    { ...node('a'), signer: signers.client },
    { ...node('a'), username: 'system:serviceaccount:x:y' },
    { ...node('a'), groups: ['system:authenticated'] },
  ])
    expect(judge(other, { subject })).toEqual({ kind: 'leave' })
})

test('a Node gets the certificate of its server for its own name and addresses', () => {
  const alternatives = [
    dnsName('a'),
    address('10.0.0.2'),
    [7, Buffer.from(`fd00${'0'.repeat(27)}2`, 'hex')] as [number, Buffer],
  ]
  const nodes = new Map([...known.nodes].filter(([name]) => name !== 'liar'))
  const parts = { subject: nodeSubject('a'), alternatives }
  expect(judge(node('a'), parts, { nodes })).toMatchObject({ kind: 'approve' })
})

test.for<[string, string, RequestParts, string, string]>([
  ['another Node', 'a', { subject: nodeSubject('liar'), alternatives: [dnsName('liar')] }, 'deny', 'Subject'],
  ['nothing', 'a', { subject: nodeSubject('a') }, 'deny', 'AlternativeNames'],
  [
    'another name',
    'a',
    { subject: nodeSubject('a'), alternatives: [dnsName('b')] },
    'deny',
    'AlternativeNames',
  ],
  ['all names', 'a', { subject: nodeSubject('a'), alternatives: [dnsName('*')] }, 'deny', 'AlternativeNames'],
  [
    'loopback',
    'liar',
    { subject: nodeSubject('liar'), alternatives: [address('127.0.0.1')] },
    'deny',
    'AlternativeNames',
  ],
  [
    'a Service',
    'liar',
    { subject: nodeSubject('liar'), alternatives: [address('10.96.0.1')] },
    'deny',
    'AlternativeNames',
  ],
  [
    'the API server',
    'liar',
    { subject: nodeSubject('liar'), alternatives: [address('10.0.0.1')] },
    'deny',
    'AlternativeNames',
  ],
  [
    "another's address",
    'liar',
    { subject: nodeSubject('liar'), alternatives: [address('10.0.0.2')] },
    'deny',
    'AlternativeNames',
  ],
  [
    'an unknown address',
    'a',
    { subject: nodeSubject('a'), alternatives: [address('10.0.0.9')] },
    'wait',
    'AlternativeNames',
  ],
  ['no Node', 'b', { subject: nodeSubject('b'), alternatives: [dnsName('b')] }, 'wait', 'NoNode'],
])('a Node does not get the certificate of a server for %s', ([, name, parts, kind, reason]) => {
  expect(judge(node(name), parts)).toMatchObject({ kind, reason })
})

test('a Node does not get the certificate of a client from us, or of both', () => {
  const parts = { subject: nodeSubject('a'), alternatives: [dnsName('a')] }
  const usages = [...node('a').usages, 'client auth']
  expect(judge({ ...node('a'), usages }, parts)).toMatchObject({ kind: 'deny', reason: 'Usages' })
})
