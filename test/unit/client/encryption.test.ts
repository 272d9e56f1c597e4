import { describe, expect, test } from 'vitest'
import { loadedEncryption, rewriteSecrets } from '../../../src/client/encryption.ts'
import { serve } from './fake-api.ts'

const secret = (name: string) => ({ metadata: { name, namespace: 'default' }, data: { word: 'YQ==' } })
const pathOf = (name: string) => `/api/v1/namespaces/default/secrets/${name}`
const conflict = { status: 409, body: { message: 'the object has been modified' } }

describe('Secrets that are written anew', () => {
  const firstPage = 'GET /api/v1/secrets?limit=100'

  test('are read a page at a time, again where somebody changed one, and passed over where it is gone', async () => {
    const { kubeconfig, asked } = await serve({
      [firstPage]: [{ body: { items: [secret('a')], metadata: { continue: 'more' } } }],
      'GET /api/v1/secrets?continue=more&limit=100': [{ body: { items: [secret('gone')], metadata: {} } }],
      [`PUT ${pathOf('a')}`]: [conflict, { body: secret('a') }],
      [`GET ${pathOf('a')}`]: [{ body: secret('a') }],
    })
    expect(await rewriteSecrets(kubeconfig)).toBe(2)
    expect(asked.filter((one) => one === `PUT ${pathOf('a')}`)).toHaveLength(2)
    expect(asked).toContain(`PUT ${pathOf('gone')}`)
  })

  test('are given up where the API server refuses, with its words', async () => {
    const { kubeconfig } = await serve({
      [firstPage]: [{ body: { items: [secret('a')], metadata: {} } }],
      [`PUT ${pathOf('a')}`]: [{ status: 403, body: { message: 'not allowed' } }],
    })
    await expect(rewriteSecrets(kubeconfig)).rejects.toThrow(
      'cannot write the Secret default/a anew: not allowed (HTTP 403)',
    )
  })

  test('are given up after many changes of somebody else', async () => {
    const { kubeconfig, asked } = await serve({
      [firstPage]: [{ body: { items: [secret('a')], metadata: {} } }],
      [`PUT ${pathOf('a')}`]: [conflict],
      [`GET ${pathOf('a')}`]: [{ body: secret('a') }],
    })
    await expect(rewriteSecrets(kubeconfig)).rejects.toThrow('HTTP 409')
    expect(asked.filter((one) => one.startsWith('PUT'))).toHaveLength(20)
  })
})

describe('what the API server has loaded', () => {
  const metric = 'apiserver_encryption_config_controller_last_config_info'

  test('is in its metrics, once it tells it', async () => {
    const { kubeconfig } = await serve({
      'GET /metrics': [
        { body: 'up 1\n' },
        { body: `${metric}{apiserver_id_hash="sha256:aa",hash="sha256:0f"} 1\n` },
      ],
    })
    expect(await loadedEncryption(kubeconfig)).toBeUndefined()
    expect(await loadedEncryption(kubeconfig)).toBe('0f')
  })

  test('is not known where it refuses, or where there is no cluster', async () => {
    const { kubeconfig } = await serve({ 'GET /metrics': [{ status: 403, body: '' }] })
    await expect(loadedEncryption(kubeconfig)).rejects.toMatchObject({ code: 'API_REQUEST' })
    await expect(loadedEncryption('/none/kubeconfig')).rejects.toMatchObject({ code: 'CLUSTER_ACCESS' })
  })
})
