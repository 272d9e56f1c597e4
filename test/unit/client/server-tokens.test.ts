import { expect, test } from 'vitest'
import { createToken, deleteTokensOf, serverAddresses } from '../../../src/client/join-tokens.ts'
import { nodesAmong, readShared, removeShared, writeShared } from '../../../src/client/shared-encryption.ts'
import { serve } from './fake-api.ts'

const secrets = '/api/v1/namespaces/kube-system/secrets'
const roles = '/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system'
const group = 'system:bootstrappers:k8s:servers'
const token = { id: 'abcdef', secret: '0'.repeat(16), group, expires: undefined, description: undefined }
const bundle = { name: 'k8s-server-bundle-abcdef', key: 'bundle', sealed: Buffer.from('sealed') }
const secretOf = (id: string, of: string) => ({
  metadata: { name: `bootstrap-token-${id}`, uid: '7' },
  type: 'bootstrap.kubernetes.io/token',
  data: { 'auth-extra-groups': Buffer.from(of).toString('base64') },
})

test('with a token for servers comes what it opens, readable for its group alone', async () => {
  const { kubeconfig, asked } = await serve({
    [`POST ${secrets}`]: [{ body: secretOf('abcdef', group) }],
    [`POST ${roles}/roles`]: [{ body: {} }],
    [`POST ${roles}/rolebindings`]: [{ body: {} }],
    'GET /api/v1/namespaces/kube-public/configmaps/cluster-info': [
      { body: { data: { 'jws-kubeconfig-abcdef': 'x' } } },
    ],
  })
  expect(await createToken(kubeconfig, token, bundle)).toBe(true)
  expect(asked.filter((one) => one.startsWith('POST'))).toEqual([
    `POST ${secrets}`,
    `POST ${secrets}`,
    `POST ${roles}/roles`,
    `POST ${roles}/rolebindings`,
  ])
})

test('a token without it is none: it is taken back', async () => {
  const { kubeconfig, asked } = await serve({
    [`POST ${secrets}`]: [
      { body: secretOf('abcdef', group) },
      { status: 403, body: { message: 'too large' } },
    ],
    [`GET ${secrets}/bootstrap-token-abcdef`]: [{ body: secretOf('abcdef', group) }],
    [`DELETE ${secrets}/bootstrap-token-abcdef`]: [{ body: {} }],
  })
  await expect(createToken(kubeconfig, token, bundle)).rejects.toThrow(
    'cannot create what the token opens: too large',
  )
  expect(asked.at(-1)).toBe(`DELETE ${secrets}/bootstrap-token-abcdef`)
})

test('the tokens of a group are taken back, and those of others stay', async () => {
  const list = `${secrets}?fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken`
  const { kubeconfig, asked } = await serve({
    [`GET ${list}`]: [{ body: { items: [secretOf('aaaaaa', group), secretOf('bbbbbb', 'other')] } }],
    [`GET ${secrets}/bootstrap-token-aaaaaa`]: [{ body: secretOf('aaaaaa', group) }],
    [`DELETE ${secrets}/bootstrap-token-aaaaaa`]: [{ body: {} }],
  })
  expect(await deleteTokensOf(kubeconfig, group)).toBe(1)
  expect(asked.filter((one) => one.startsWith('DELETE'))).toEqual([
    `DELETE ${secrets}/bootstrap-token-aaaaaa`,
  ])
})

test('the servers are those of the Service kubernetes', async () => {
  const path =
    '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes'
  const slice = {
    endpoints: [{ addresses: ['192.0.2.1'] }, { addresses: ['192.0.2.2'] }],
    ports: [{ name: 'https', port: 6443 }],
  }
  const { kubeconfig } = await serve({ [`GET ${path}`]: [{ body: { items: [slice] } }] })
  expect(await serverAddresses(kubeconfig)).toEqual(['192.0.2.1', '192.0.2.2'])
})

const place = { namespace: 'kube-system', name: 'k8s-encryption', key: 'config' }

test('what servers share is written beside what they have written meanwhile', async () => {
  const path = `${secrets}/k8s-encryption`
  const { kubeconfig, asked } = await serve({
    [`GET ${path}`]: [
      { status: 404, body: {} },
      { body: { metadata: { name: place.name }, data: { 'server.a': 'MA==' } } },
    ],
    [`POST ${secrets}`]: [{ status: 409, body: { message: 'it is there' } }],
    [`PUT ${path}`]: [{ body: {} }],
    [`DELETE ${path}`]: [{ body: {} }],
    'GET /api/v1/nodes/a': [{ body: { metadata: { name: 'a' } } }],
  })
  await writeShared(kubeconfig, place, Buffer.from('text'))
  expect(asked).toEqual([`GET ${path}`, `POST ${secrets}`, `GET ${path}`, `PUT ${path}`])
  expect(await readShared(kubeconfig, place)).toEqual({ 'server.a': 'MA==' })
  expect(await nodesAmong(kubeconfig, ['a', 'b'])).toEqual(['a'])
  await removeShared(kubeconfig, place)
  expect(asked.at(-1)).toBe(`DELETE ${path}`)
})
