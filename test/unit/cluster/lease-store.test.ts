import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { expect, onTestFinished, test } from 'vitest'
import { leaseStore } from '../../../src/cluster/lease-store.ts'
import { freePort } from '../../free-port.ts'

const path = '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases'
const { signal } = new AbortController()

interface Lease {
  metadata: { name: string; resourceVersion?: string }
  spec: { holderIdentity: string }
}

/** An API server with one Lease at most. */
async function serve(state: { lease?: Lease; status?: number }) {
  const asked: string[] = []
  const server = createServer(async (request, response) => {
    asked.push(`${request.method} ${request.url}`)
    const sent = request.method === 'GET' ? undefined : ((await json(request)) as Lease)
    const isOld = sent?.metadata.resourceVersion !== state.lease?.metadata.resourceVersion
    if (state.status !== undefined) return response.writeHead(state.status).end('{}')
    if (sent !== undefined && isOld) return response.writeHead(409).end('{}')
    const version = String(Number(state.lease?.metadata.resourceVersion ?? 0) + 1)
    if (sent !== undefined)
      state.lease = { ...sent, metadata: { ...sent.metadata, resourceVersion: version } }
    return response.writeHead(state.lease === undefined ? 404 : 200).end(JSON.stringify(state.lease ?? {}))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  return { asked, ...access((server.address() as AddressInfo).port) }
}

function access(port: number) {
  return { server: `http://127.0.0.1:${port}`, identity: () => Promise.resolve({}) }
}

test('a Lease is read, made and taken over, and not where somebody else was faster', async () => {
  const state: { lease?: Lease } = {}
  const server = await serve(state)
  const store = leaseStore({ lease: 'server', servers: [server] })
  expect(await store.get(signal)).toBeUndefined()
  const mine = { holder: 'a', leaseMs: 30_000, transitions: 0 }
  const made = await store.create(mine, signal)
  expect(made).toEqual({ ...mine, version: '1' })
  const taken = await store.replace({ ...made, holder: 'b', transitions: 1 }, signal)
  expect(taken).toEqual({ holder: 'b', leaseMs: 30_000, transitions: 1, version: '2' })
  expect(await store.get(signal)).toEqual(taken)
  await expect(store.replace(made, signal)).rejects.toThrow('somebody else has written the Lease k8s-server')
  await expect(store.create(mine, signal)).rejects.toThrow('somebody else has written')
  expect(state.lease?.spec.holderIdentity).toBe('b')
  expect(new Set(server.asked)).toEqual(
    new Set([`GET ${path}/k8s-server`, `POST ${path}`, `PUT ${path}/k8s-server`]),
  )
})

test('the first of the servers that answers is asked', async () => {
  const [unwell, well] = [await serve({ status: 500 }), await serve({})]
  const away = access(await freePort())
  const store = (...servers: (typeof away)[]) => leaseStore({ lease: 'joining', servers })
  expect(await store(away, unwell, well).get(signal)).toBeUndefined()
  await expect(store(away, unwell).get(signal)).rejects.toThrow('k8s-joining-server: HTTP 500')
  await expect(store().get(signal)).rejects.toThrow('no server is known')
})
