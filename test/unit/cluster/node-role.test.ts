import { expect, test } from 'vitest'
import { nodeRole } from '../../../src/cluster/tasks/node-role.ts'
import type { TaskContext } from '../../../src/cluster/tasks/task.ts'
import { FakeCluster } from './join/fake-cluster.ts'

const label = 'node-role.kubernetes.io/control-plane'

async function run(answers: [number, object][]) {
  const cluster = new FakeCluster()
  const sent: string[] = []
  cluster.more = ({ path, method, body }) => {
    expect(path).toBe('/api/v1/nodes/a')
    sent.push(`${method} ${body}`)
    return answers.shift()
  }
  await cluster.start()
  const { cert, key } = cluster.clientAuthority.issue({ usage: 'client' })
  const own = { server: cluster.url, identity: async () => ({ ca: cluster.authority.cert, cert, key }) }
  const context = {
    ...{ config: { nodeName: 'a' }, whenReady: async () => {}, access: { ...own, admin: own } },
  } as unknown as TaskContext
  return { sent, done: nodeRole.run(context, new AbortController().signal) }
}

test('a Node that has its role is left alone', async () => {
  const { sent, done } = await run([[200, { metadata: { labels: { [label]: 'true' } } }]])
  await done
  expect(sent).toEqual(['GET '])
})

test('one that is gone is, too', async () => {
  const { sent, done } = await run([[404, {}]])
  await done
  expect(sent).toEqual(['GET '])
})

test('a new one is marked, and a refusal told', async () => {
  const { sent, done } = await run([
    [200, { metadata: { labels: { a: 'b' } } }],
    [200, {}],
  ])
  await done
  expect(sent).toEqual(['GET ', `PATCH {"metadata":{"labels":{"${label}":""}}}`])
  const refused = await run([
    [200, {}],
    [403, {}],
  ])
  await expect(refused.done).rejects.toMatchObject({
    code: 'API_REFUSED',
    message: expect.stringContaining('HTTP 403'),
  })
})
