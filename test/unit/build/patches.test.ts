import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { tmpdir } from 'node:os'
import { afterEach, beforeEach, expect, test } from 'vitest'

const root = new URL('../../../', import.meta.url).pathname

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'k8s-patches-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

function run(command: readonly string[], environment: Readonly<Record<string, string>>) {
  const [program = '', ...arguments_] = command
  const { status, stdout, stderr } = spawnSync(program, arguments_, {
    env: { PATH: process.env['PATH'], ...environment },
    encoding: 'utf8',
    // A socket there makes bash read ~/.bashrc.
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return { status, stdout, stderr }
}

function write(path: string, text: string): void {
  mkdirSync(dirname(join(directory, path)), { recursive: true })
  writeFileSync(join(directory, path), text)
}

/** apply_patch of scripts/lib.sh on `tree`, with patches from the test's directory. */
function applyPatch(header: string) {
  write('tree/kept/file.go', 'one\ntwo\nthree\n')
  write('tree/gone/file.go', 'package gone\n')
  write('outside', 'stays')
  write(
    'patch',
    `${header}\n--- a/kept/file.go\n+++ b/kept/file.go\n@@ -1,3 +1,3 @@\n one\n-two\n+deux\n three\n`,
  )
  return run(['bash', '-c', applied()], {})
}

const applied = () => `source ${root}scripts/lib.sh; root=${directory}; apply_patch patch ${directory}/tree`

const series = readdirSync(`${root}patches`).filter((name) => /^\d/.test(name))

test.each(['v1.31.4', 'v1.30.0', 'v2.0.0'])(
  '%s, for which there is no series, is refused before anything is downloaded, with the list of those that have one',
  (version) => {
    for (const script of ['setup.sh', 'download-k8s.sh', 'apply-patches.sh']) {
      // Whatever would bring something is not there.
      const { status, stderr } = run(['bash', `${root}scripts/${script}`], {
        PATH: '/usr/bin:/bin',
        http_proxy: 'http://127.0.0.1:1',
        https_proxy: 'http://127.0.0.1:1',
        K8S_VERSION: version,
      })
      expect(status).toBe(1)
      expect(stderr).toBe(
        `cannot build ${version}: patches/ has series for ${series.join(', ')} (patches/README.md says how to make one)\n`,
      )
    }
  },
)

test('what is no version is refused with what one looks like', () => {
  const { status, stderr } = run(['bash', `${root}scripts/setup.sh`], { K8S_VERSION: '1.37' })
  expect(status).toBe(1)
  expect(stderr).toBe('cannot build K8S_VERSION=1.37: want vMAJOR.MINOR.PATCH, such as v1.37.1\n')
})

test('a patch changes lines, and removes what its header names', () => {
  expect(applyPatch('Subject: a change\n\nRemoves: gone\n')).toMatchObject({ status: 0, stderr: '' })
  expect(readFileSync(join(directory, 'tree/kept/file.go'), 'utf8')).toBe('one\ndeux\nthree\n')
  expect(existsSync(join(directory, 'tree/gone'))).toBe(false)
})

test.each(['missing', '../outside', 'kept/../../outside', '/etc/hostname'])(
  'a patch that removes %s fails, and nothing outside the tree goes',
  (path) => {
    const { status, stderr } = applyPatch(`Removes: ${path}\n`)
    expect(status).toBe(1)
    expect(stderr).toContain(`there is no ${path} to remove`)
    expect(existsSync(join(directory, 'outside'))).toBe(true)
  },
)

test('a patch whose lines are not there fails with its name, the place and the lines', () => {
  applyPatch('Subject: a change\n')
  // What it looks for is not there any more.
  const { status, stderr } = run(['bash', '-c', applied()], {})
  expect(status).toBe(1)
  expect(stderr).toMatch(/^cannot apply patch to Kubernetes v\S+:\n[^]*file\.go[^]*\+deux/)
})

const patches = (folder: string) =>
  readdirSync(`${root}patches/${folder}`).filter((name) => name.endsWith('.patch'))

test.each([...series, 'cri-dockerd'])('every patch of %s says why', (folder) => {
  for (const name of patches(folder)) {
    const [header = ''] = readFileSync(`${root}patches/${folder}/${name}`, 'utf8').split('\n--- ')
    expect(header).toMatch(/^Subject: .+\n\n.+/)
  }
})

test('each series of Kubernetes has the same patches', () => {
  for (const minor of series) expect(patches(minor)).toEqual(patches(series[0] ?? ''))
})
