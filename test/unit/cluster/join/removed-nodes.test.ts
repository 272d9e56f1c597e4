import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdtempDisposableSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { expect, onTestFinished, test, vi } from 'vitest'
import { refuseRemovedNodes } from '../../../../src/addons/removed-nodes.ts'
import { objectPath } from '../../../../src/api/objects.ts'
import { Board } from '../../../../src/cluster/condition.ts'
import { Api } from '../../../../src/api/client.ts'
import { removedAt, takeBack } from '../../../../src/cluster/join/removed-nodes.ts'
import { join } from '../../../../src/cluster/tasks/join.ts'
import type { NodeTaskContext } from '../../../../src/cluster/tasks/task.ts'
import { paths } from '../../../../src/config/paths.ts'

const path = '/api/v1/namespaces/kube-system/configmaps/k8s-removed-nodes'
const silent = { debug() {}, info() {}, warn() {}, error() {} }

/** By path; 404 for all others. What is written is kept. */
async function serve(objects: Record<string, object | number>) {
  const asked: string[] = []
  const server = createServer((request, response) => {
    let text = ''
    request.on('data', (part: Buffer) => (text += part.toString()))
    request.on('end', () => {
      const url = request.url ?? ''
      asked.push(url)
      if (request.method === 'PUT') objects[url] = JSON.parse(text) as object
      const found = objects[url] ?? 404
      response.writeHead(typeof found === 'number' ? found : 200)
      response.end(JSON.stringify(typeof found === 'number' ? {} : found))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { server: `http://127.0.0.1:${port}`, tls: {}, signal: new AbortController().signal, objects, asked }
}

test.each<[string, object | number, string | undefined]>([
  ['that was removed', { data: { a: '2026-11-26' } }, '2026-11-26'],
  ['that was not', { data: { b: '2026-11-26' } }, undefined],
  ['where none was', {}, undefined],
  ['where there is no list', 404, undefined],
  ['where it may not be read', 403, undefined],
  ['of the name of what every object has', { data: {} }, undefined],
])('a Node %s', async (what, list, expected) => {
  using api = new Api(await serve({ [path]: list }))
  expect(await removedAt(what.includes('every object') ? 'constructor' : 'a', api)).toBe(expected)
})

test('where the API server is not well, nothing is known', async () => {
  using api = new Api(await serve({ [path]: 500 }))
  await expect(removedAt('a', api)).rejects.toThrow('HTTP 500')
})

test('a name that is taken back leaves the others', async () => {
  const access = await serve({ [path]: { metadata: { resourceVersion: '7' }, data: { a: '1', b: '2' } } })
  using api = new Api(access)
  expect(await takeBack(api, 'a')).toBe(true)
  expect(access.objects[path]).toEqual({ metadata: { resourceVersion: '7' }, data: { b: '2' } })
  expect(await takeBack(api, 'a')).toBe(true)
  delete access.objects[path]
  expect(await takeBack(api, 'a')).toBe(true)
})

test('the cluster refuses them by objects that it knows how to apply', () => {
  const objects = refuseRemovedNodes('system:nodes')
  expect(objects.map(objectPath)).toContain(
    '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/k8s-removed-nodes',
  )
})

/** A task on a machine whose Node is not there. */
async function joinTask(list: object | number) {
  const directory = mkdtempDisposableSync(`${tmpdir()}/k8s-removed-`)
  onTestFinished(() => directory.remove())
  const access = await serve({ [path]: list })
  const leave = vi.fn<(reason: Error) => void>()
  const context = {
    ...{ board: new Board(), paths: paths({ dataDir: directory.path }), log: silent, leave },
    config: { nodeName: 'a' },
    access: { server: access.server, identity: () => Promise.resolve({}) },
    isReady: () => false,
  } as unknown as NodeTaskContext
  const end = new AbortController()
  const run = join.run(context, end.signal).catch(() => {})
  onTestFinished(async () => {
    end.abort()
    await run
  })
  return { leave, end, run, asked: access.asked }
}

test('a machine whose Node was removed ends its daemon', async () => {
  const { leave } = await joinTask({ data: { a: '2026-11-26' } })
  await vi.waitFor(() => expect(leave).toHaveBeenCalled())
  expect(leave.mock.calls[0]?.[0]).toMatchObject({
    code: 'NODE_REMOVED',
    message: 'cannot run this node: a was removed from the cluster (k8s node remove) at 2026-11-26',
  })
})

test.each([403, 500])('one of which nothing is known goes on (HTTP %d)', async (status) => {
  const { leave, end, run, asked } = await joinTask(status)
  await vi.waitFor(() => expect(asked.filter((one) => one === path)).toHaveLength(2), 10_000)
  end.abort()
  await run
  expect(leave).not.toHaveBeenCalled()
})
