import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { buildLauncher, file, folder, run, section, testDirectory, writeArtifact } from './artifact.ts'

// How kubectl is started where there is no cluster: it is a script that says what it was told of one.

const tell = '#!/bin/sh\necho "$KUBECONFIG|$KUBERNETES_MASTER"\n'
const noServer = 'https://no kubeconfig names a cluster'

let directory: string
let path: string
let dataDir: string

beforeAll(() => {
  directory = testDirectory()
  dataDir = join(directory, 'data-dir')
  path = writeArtifact({
    path: join(directory, 'k8s'),
    launcher: buildLauncher(directory),
    sections: [
      section([folder('lib'), file('lib/main.js', '')]),
      section([folder('bin'), file('bin/kubectl', tell)]),
    ],
  })
})

const kubectl = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  run({ path, args: [`--data-dir=${dataDir}`, 'kubectl', ...args], env: { HOME: directory, ...env } })

const missing = () => `k8s: there is no cluster in ${dataDir}: start one with systemctl start k8s, or k8s\n`

// It went to port 8080 of the machine, and took whoever listens there for the API server.
test('without a cluster it has no server to go to, but for one that its user names', () => {
  expect(kubectl(['get', 'nodes'])).toEqual({ code: 0, stdout: `|${noServer}\n`, stderr: missing() })
  const named = { KUBERNETES_MASTER: 'http://192.0.2.1' }
  expect(kubectl(['get', 'nodes'], named)).toMatchObject({ stdout: '|http://192.0.2.1\n' })
})

test.each([
  '--server=https://192.0.2.1 get nodes',
  'get nodes -s https://192.0.2.1',
  'get nodes --kubeconfig /elsewhere',
  'label --local -f pod.yaml a=b',
  'kuberc view',
  'version --client=true',
  'config view',
  '',
])('nothing is said of a missing cluster to "%s", which wants none', (args) => {
  expect(kubectl(args.split(' ').filter(Boolean))).toMatchObject({ code: 0, stderr: '' })
})

test('what follows -- is for a container, and says nothing of a cluster', () => {
  expect(kubectl(['exec', 'web', '--', 'ls', '-s', '--help'])).toMatchObject({ stderr: missing() })
})

test('a KUBECONFIG that names no file is told; one of several is enough', () => {
  const gone = join(directory, 'gone')
  expect(kubectl(['get', 'nodes'], { KUBECONFIG: `${gone}:${gone}` })).toEqual({
    code: 0,
    stdout: `${gone}:${gone}|${noServer}\n`,
    stderr: `k8s: KUBECONFIG is ${gone}:${gone}, which is not there: unset it for the cluster in ${dataDir}\n`,
  })
  const there = join(directory, 'there')
  writeFileSync(there, '')
  expect(kubectl(['get', 'nodes'], { KUBECONFIG: `${gone}:${there}` })).toMatchObject({ stderr: '' })
})

test('the user’s own configuration is used where the machine has no cluster', () => {
  const home = join(directory, 'home')
  mkdirSync(`${home}/.kube`, { recursive: true })
  writeFileSync(`${home}/.kube/config`, '')
  expect(kubectl(['get', 'nodes'], { HOME: home })).toEqual({
    code: 0,
    stdout: `|${noServer}\n`,
    stderr: '',
  })
})
