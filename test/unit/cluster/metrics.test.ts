import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { Board } from '../../../src/cluster/condition.ts'
import { metrics } from '../../../src/cluster/tasks/metrics.ts'
import type { NodeTaskContext } from '../../../src/cluster/tasks/task.ts'

/** The task, and where it serves as soon as it does. */
function serve(board: Board, metricsAddress: { host: string; port: number } | undefined) {
  const end = new AbortController()
  const url = Promise.withResolvers<string>()
  const log = { ...silentLogger, info: (fields: { url: string }) => url.resolve(fields.url) }
  const context = { board, config: { metricsAddress }, log } as unknown as NodeTaskContext
  return { url: url.promise, running: metrics.run(context, end.signal), end: () => end.abort() }
}

const anywhere = { host: '127.0.0.1', port: 0 }

test('what parts tell of themselves is served with what the process is like, until the daemon ends', async () => {
  const board = new Board()
  board.metrics.set('network-policy', (told) => told.gauge('k8s_some', 'Of a part.', 3))
  const { url, running, end } = serve(board, anywhere)
  const address = await url
  const response = await fetch(address)
  expect(response.headers.get('content-type')).toContain('version=0.0.4')
  const text = await response.text()
  expect(text).toMatch(/^# HELP k8s_some Of a part\.\n# TYPE k8s_some gauge\nk8s_some 3\n/)
  expect(text).toMatch(/^process_resident_memory_bytes [1-9]/m)
  expect((await fetch(new URL('/livez', address))).status).toBe(200)
  expect((await fetch(new URL('/secrets', address))).status).toBe(404)
  expect((await fetch(address, { method: 'POST' })).status).toBe(405)
  board.metrics.set('network-policy', () => {
    throw new Error('broken')
  })
  expect((await fetch(address)).status).toBe(500)
  end()
  await running
  await expect(fetch(address)).rejects.toThrow('fetch failed')
})

test('nobody who was not asked to serves, and an address that is taken is told with its remedy', async () => {
  await serve(new Board(), undefined).running
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  await expect(serve(new Board(), { ...anywhere, port }).running).rejects.toMatchObject({
    message: `cannot serve metrics on 127.0.0.1:${port}`,
    remedy: 'Free the address, or name another one with --metrics-address.',
  })
  taken.close()
})
