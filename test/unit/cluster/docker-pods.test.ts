import { join } from 'node:path'
import { expect, test } from 'vitest'
import { removeDockerPods } from '../../../src/cluster/docker-pods.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { fakeDocker } from '../fake-docker.ts'

const own = { 'io.kubernetes.pod.uid': 'uid-1' }
const containers = [
  { Id: 'sandbox', Labels: own },
  { Id: 'container', Labels: own },
  { Id: 'of-another-kubelet', Labels: { 'io.kubernetes.pod.uid': 'uid-2' } },
  { Id: 'of-nobody', Labels: null },
]

/** What answers as Docker does: the removal of each container with a status. */
async function docker(statuses: Readonly<Record<string, number>> = {}) {
  const removed: string[] = []
  const socketPath = await fakeDocker((asked, answer) => {
    if (asked.method === 'GET') return void answer.end(JSON.stringify(containers))
    const id = /^\/containers\/([^?]+)\?force=true&v=true$/.exec(asked.url ?? '')?.[1] ?? ''
    removed.push(id)
    answer.writeHead(statuses[id] ?? 204).end(statuses[id] === undefined ? '' : '{"message":"no"}')
  })
  return { socketPath, removed }
}

test('only containers of the pods that are named go', async () => {
  const { socketPath, removed } = await docker()
  await removeDockerPods(socketPath, new Set(['uid-1']))
  expect(removed.toSorted()).toEqual(['container', 'sandbox'])
})

test('one that somebody else removes is gone, too', async () => {
  const { socketPath } = await docker({ sandbox: 404, container: 409 })
  await expect(removeDockerPods(socketPath, new Set(['uid-1']))).resolves.toBeUndefined()
})

test('what Docker refuses is told with its words', async () => {
  const { socketPath, removed } = await docker({ sandbox: 500 })
  await expect(removeDockerPods(socketPath, new Set(['uid-1']))).rejects.toMatchObject({
    code: 'DOCKER_PODS',
    message: 'Docker cannot remove a container: it answers 500: {"message":"no"}',
  })
  expect(removed).toContain('container')
})

test('of a Docker that does not run nothing is to be ended', async () => {
  const removal = removeDockerPods(join(temporaryDirectory(), 'docker.sock'), new Set(['uid-1']))
  await expect(removal).resolves.toBeUndefined()
})
