import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { networkPolicy } from '../../../src/cluster/tasks/network-policy.ts'
import type { NodeTaskContext } from '../../../src/cluster/tasks/task.ts'
import { hostTree } from '../node/host-tree.ts'

let server: Server
let asked: string[]
let answer: (response: ServerResponse) => void
let end: AbortController
let reported: string[]
let wake: () => void

beforeEach(async () => {
  asked = []
  reported = []
  wake = () => {}
  end = new AbortController()
  answer = (response) => response.end(JSON.stringify({ metadata: { resourceVersion: '1' }, items: [] }))
  server = createServer((request, response) => {
    asked.push(request.url ?? '')
    if (!request.url?.includes('watch=')) answer(response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
})

function run(disable: readonly string[] = []): Promise<void> {
  const { port } = server.address() as AddressInfo
  const context = {
    access: { policies: { server: `http://127.0.0.1:${port}`, identity: () => Promise.resolve({}) } },
    board: {
      report({ name, state, message }: { name: string; state: string; message?: string }) {
        reported.push(`${name} is ${state}: ${message}`)
        wake()
      },
      forget() {},
      metrics: new Map(),
    },
    config: { nodeName: 'here', clusterCidr: '10.244.0.0/16', disable },
    log: { info() {}, error() {}, warn() {}, debug() {} },
    paths: { policyMark: join(hostTree({}), 'network-policy') },
    whenReady: () => Promise.resolve(),
  } as unknown as NodeTaskContext
  return networkPolicy.run(context, end.signal)
}

async function untilReported(count: number): Promise<void> {
  while (reported.length < count) await new Promise<void>((resolve) => (wake = resolve))
}

test('a cluster without policies pays for one watch', async () => {
  const running = run()
  await untilReported(1)
  expect(reported).toEqual(['network-policy is ready: there are no policies'])
  end.abort()
  await expect(running).rejects.toThrow('abort')
  expect(new Set(asked.map((url) => url.split('?')[0]))).toEqual(
    new Set(['/apis/networking.k8s.io/v1/networkpolicies']),
  )
})

test('a node that leaves it out asks for nothing', async () => {
  await run(['network-policy'])
  expect([asked, reported]).toEqual([[], []])
})
