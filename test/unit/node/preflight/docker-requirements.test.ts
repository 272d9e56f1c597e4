import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import type { Mount } from '../../../../src/node/facts/mounts.ts'
import { HostFiles } from '../../../../src/node/facts/host-files.ts'
import { dockerRequirements, judgeDocker } from '../../../../src/node/preflight/docker-requirements.ts'
import { temporaryDirectory } from '../../datastore/support.ts'

const docker = { version: '28.5.2', apiVersion: '1.51', rootDir: '/var/lib/docker', bridge: 'docker0' }

const mount = (path: string, isShared = false): Mount => ({
  ...{ path, isShared, type: 'ext4', options: [], device: '8:1', root: '/' },
})

/** A machine, or a container where it has Docker's mark, with these files and mounts. */
function surroundings(files: readonly string[], mounts: readonly Mount[]) {
  const root = temporaryDirectory()
  for (const file of files) {
    const path = join(root, file)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, file.endsWith('/comm') ? 'dockerd\n' : '')
  }
  return {
    ...{ dockerSocket: join(root, 'docker.sock'), kubeletRootDir: '/var/lib/kubelet' },
    ...{ mounts, files: new HostFiles(root) },
  }
}

const everything = [
  '.dockerenv',
  'dev/kmsg',
  'proc/7/comm',
  'sys/class/net/docker0',
  'var/lib/docker/containers/x',
]
const allMounts = [
  mount('/'),
  mount('/var/lib/docker'),
  mount('/var/lib/kubelet', true),
  mount('/var/log/pods'),
]

test('a machine is asked for its Docker alone', () => {
  expect(judgeDocker(docker, surroundings([], [mount('/', true)]))).toEqual([
    expect.objectContaining({ name: 'docker', state: 'ok' }),
  ])
})

test.each(['1.41', '0', '1'])('a Docker with API %s is too old', (apiVersion) => {
  expect(judgeDocker({ ...docker, apiVersion }, surroundings([], []))).toEqual([
    expect.objectContaining({ name: 'docker', state: 'missing', remedy: 'use Docker 23 or newer' }),
  ])
})

test('a container that has all mounts lacks nothing', () => {
  const judged = judgeDocker(docker, surroundings(everything, allMounts))
  expect(judged.map(({ name }) => name)).toEqual(['docker'])
})

test('the short docker run is told what each flag would bring', () => {
  const judged = judgeDocker(
    docker,
    surroundings(
      ['.dockerenv', 'dev/kmsg', 'var/lib/docker/containers/x'],
      [mount('/'), mount('/var/lib/docker')],
    ),
  )
  expect(judged.flatMap(({ remedy }) => remedy ?? [])).toEqual([
    'docker run ... -v /var/lib/kubelet:/var/lib/kubelet:rshared',
    'docker run ... -v /var/log/pods:/var/log/pods',
    'docker run ... --pid=host',
    'docker run ... --network=host',
  ])
})

test.each([
  ['dev/kmsg', 'docker run ... --privileged'],
  ['var/lib/docker/containers/x', 'docker run ... -v /var/lib/docker:/var/lib/docker'],
  ['proc/7/comm', 'docker run ... --pid=host'],
  ['sys/class/net/docker0', 'docker run ... --network=host'],
])('without /%s: %s', (missing, remedy) => {
  const judged = judgeDocker(
    docker,
    surroundings(
      everything.filter((file) => file !== missing),
      allMounts,
    ),
  )
  expect(judged.flatMap((one) => one.remedy ?? [])).toEqual([remedy])
})

test('a kubelet directory that is not shared is told', () => {
  const mounts = [mount('/'), mount('/var/lib/docker'), mount('/var/lib/kubelet'), mount('/var/log/pods')]
  expect(judgeDocker(docker, surroundings(everything, mounts))[1]).toMatchObject({
    name: 'kubelet directory',
    detail: expect.stringContaining('not a shared mount'),
  })
})

test('a Docker that is not there is told with what to do, in a container by its flag', async () => {
  const [machine] = await dockerRequirements(surroundings([], []))
  expect(machine).toMatchObject({ state: 'missing', remedy: expect.stringContaining('--docker-endpoint') })
  const [container] = await dockerRequirements(surroundings(['.dockerenv'], []))
  expect(container?.remedy).toMatch(/^docker run \.\.\. -v \/var\/run\/docker\.sock:/)
})
