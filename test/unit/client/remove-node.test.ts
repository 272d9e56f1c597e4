import { expect, test } from 'vitest'
import { forgetRemoval, isPendingOf, removeNode } from '../../../src/client/remove-node.ts'
import { certificateRequest } from '../../fixtures/certificate-request.ts'
import { type Answer, serve } from './fake-api.ts'

const removed = { namespace: 'kube-system', name: 'removed' }
const promised = { namespace: 'kube-system', name: 'promised' }
const mapPath = (name: string) => `/api/v1/namespaces/kube-system/configmaps/${name}`
const slices =
  'GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes'
const requests = '/apis/certificates.k8s.io/v1/certificatesigningrequests'
const lease = 'DELETE /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a'
const node = {
  metadata: { name: 'a', uid: 'n' },
  status: {
    addresses: [{ type: 'InternalIP', address: '192.0.2.7' }],
    conditions: [{ type: 'Ready', status: 'Unknown' }],
  },
}

function request(name: string, spec: object, status: object = {}) {
  return { metadata: { name }, spec: { signerName: 's', request: '', ...spec }, status }
}

async function given(
  answers: Readonly<Record<string, readonly Answer[]>>,
  { ownNode, ...options }: { ownNode?: string; force?: boolean; dryRun?: boolean } = {},
) {
  const endpoints = [{ addresses: ['192.0.2.1'] }]
  const { kubeconfig, asked } = await serve({
    'GET /api/v1/nodes/a': [{ body: node }],
    'DELETE /api/v1/nodes/a': [{ body: {} }],
    'GET /api/v1/persistentvolumes': [{ body: { items: [] } }],
    [slices]: [{ body: { items: [{ endpoints, ports: [{ name: 'https', port: 6443 }] }] } }],
    [`GET ${requests}`]: [{ body: { items: [] } }],
    [`POST ${mapPath('').slice(0, -1)}`]: [{ status: 201, body: {} }],
    [`PATCH ${mapPath('removed')}`]: [{ body: { data: { a: '2026' } } }],
    [`PATCH ${mapPath('promised')}`]: [{ body: {} }],
    ...answers,
  })
  const said: string[] = []
  const remove = () =>
    removeNode(kubeconfig, 'a', {
      ...{ deleteEmptydirData: false, force: false, disableEviction: false, dryRun: false },
      ...{ gracePeriodSeconds: undefined, timeoutMs: 0, signal: new AbortController().signal },
      ...{ print: (line: string) => said.push(line), removed, promised, ownNode },
      ...options,
    })
  return { kubeconfig, asked, said, remove }
}

test('a Node that is not Ready goes undrained, after its name was written down, and with it what is kept of it', async () => {
  const { asked, said, remove } = await given({
    [`GET ${mapPath('promised')}`]: [{ body: { data: { a: 'hash' } } }],
    [lease]: [{ body: {} }],
    [`GET ${requests}`]: [
      {
        body: {
          items: [request('mine', { username: 'system:node:a' }), request('other', { username: 'b' })],
        },
      },
    ],
    [`DELETE ${requests}/mine`]: [{ body: {} }],
  })
  expect(await remove()).toEqual({ wasRemoved: false, isServer: false })
  expect(said).toEqual(['a is not Ready, so that it is not drained: its pods are deleted with it.'])
  expect(asked.filter((one) => !one.startsWith('GET'))).toEqual([
    `POST ${mapPath('').slice(0, -1)}`,
    `PATCH ${mapPath('removed')}`,
    'DELETE /api/v1/nodes/a',
    `PATCH ${mapPath('promised')}`,
    lease,
    `DELETE ${requests}/mine`,
  ])
})

test('what was interrupted goes on, and what was removed before is said to be', async () => {
  const { asked, remove } = await given({
    'GET /api/v1/nodes/a': [],
    [`GET ${mapPath('removed')}`]: [{ body: { data: { a: '2026' } } }],
    [lease]: [{ body: {} }],
  })
  expect(await remove()).toMatchObject({ wasRemoved: true })
  expect(asked).toContain(lease)
})

test('nothing is done about a Node that nobody knows', async () => {
  const { asked, remove } = await given({ 'GET /api/v1/nodes/a': [] })
  await expect(remove()).rejects.toMatchObject({ code: 'NODE_UNKNOWN' })
  expect(asked.every((one) => one.startsWith('GET'))).toBe(true)
})

test.each<[string, string | undefined, string]>([
  ['by its address', undefined, '192.0.2.7'],
  ['by its name, where it is reached by another address', 'a', '198.51.100.1'],
])('the last server is known %s', async (_, ownNode, address) => {
  const slice = { endpoints: [{ addresses: [address] }], ports: [{ name: 'https', port: 6443 }] }
  const { asked, remove } = await given(
    { [slices]: [{ body: { items: [slice] } }] },
    { force: true, ...(ownNode !== undefined && { ownNode }) },
  )
  await expect(remove()).rejects.toMatchObject({ code: 'LAST_SERVER' })
  expect(asked.every((one) => one.startsWith('GET'))).toBe(true)
})

test('one server of several is told apart', async () => {
  const endpoints = [{ addresses: ['192.0.2.1'] }, { addresses: ['192.0.2.7'] }]
  const slice = { endpoints, ports: [{ name: 'https', port: 6443 }] }
  const { remove } = await given({ [slices]: [{ body: { items: [slice] } }] }, { force: true })
  expect(await remove()).toEqual({ wasRemoved: false, isServer: true })
})

test('it is only said what would be done, where that is asked', async () => {
  const { asked, said, remove } = await given({}, { dryRun: true, force: true })
  await remove()
  expect(said).toEqual(['a is not drained, since --force says so.', 'a would be removed.'])
  expect(asked.every((one) => one.startsWith('GET'))).toBe(true)
})

/** On a Node alone, by its name. */
function volume(name: string, hostname: string, claimRef?: object) {
  const matchExpressions = [{ key: 'kubernetes.io/hostname', operator: 'In', values: [hostname] }]
  const nodeAffinity = { required: { nodeSelectorTerms: [{ matchExpressions }] } }
  return { metadata: { name }, spec: { nodeAffinity, claimRef } }
}

test('the claims whose data are on that Node alone are told', async () => {
  const claim = (name: string) => ({ namespace: 'default', name })
  const told = async (...items: object[]) => {
    const { said, remove } = await given(
      { 'GET /api/v1/persistentvolumes': [{ body: { items } }] },
      { dryRun: true, force: true },
    )
    await remove()
    return said.find((line) => line.startsWith('The data of'))
  }
  const others = [volume('pv-b', 'b', claim('other')), { metadata: { name: 'nfs' }, spec: {} }]
  expect(await told(...others)).toBeUndefined()
  expect(await told(...others, volume('pv-1', 'a', claim('data')), volume('pv-2', 'a'))).toMatch(
    /^The data of default\/data, pv-2 are on a alone: no pod can use them any more/,
  )
  const many = Array.from({ length: 12 }, (_, index) => volume(`pv-${index}`, 'a', claim(`c${index}`)))
  expect(await told(...many)).toMatch(/default\/c9 and 2 more are on a alone/)
})

test('the list of removed Nodes does not grow without end', async () => {
  const many = Object.fromEntries(
    Array.from({ length: 1002 }, (_, index) => [`n${index}`, String(index + 1000)]),
  )
  const { asked, remove } = await given({
    [`GET ${mapPath('removed')}`]: [{ body: { data: {} } }],
    [`PATCH ${mapPath('removed')}`]: [{ body: { data: many } }, { body: {} }],
  })
  await remove()
  expect(asked.filter((one) => one === `PATCH ${mapPath('removed')}`)).toHaveLength(2)
})

test('a removal is taken back', async () => {
  const { kubeconfig, asked } = await given({
    [`GET ${mapPath('removed')}`]: [{ body: { data: { a: '2026' } } }, { body: {} }],
  })
  await forgetRemoval(kubeconfig, 'a', removed)
  await forgetRemoval(kubeconfig, 'a', removed)
  expect(asked.filter((one) => one.startsWith('PATCH'))).toHaveLength(1)
})

test('a request is that of a Node by who asks, or by its subject, as long as nobody has decided', () => {
  const subject = [
    ['O', 'system:nodes'],
    ['CN', 'system:node:a'],
  ] as const
  const spec = {
    username: 'system:bootstrap:abcdef',
    request: Buffer.from(certificateRequest({ subject })).toString('base64'),
  }
  const pending = request('r', spec) as never
  expect(isPendingOf(pending, 'a')).toBe(true)
  expect(isPendingOf(pending, 'b')).toBe(false)
  expect(isPendingOf(request('r', spec, { conditions: [{ type: 'Approved' }] }) as never, 'a')).toBe(false)
  const long = 'n'.repeat(200)
  const longSubject = [['CN', `system:node:${long}`]] as const
  const ofLong = Buffer.from(certificateRequest({ subject: longSubject })).toString('base64')
  expect(isPendingOf(request('r', { request: ofLong }) as never, long)).toBe(true)
})
