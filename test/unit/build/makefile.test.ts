import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdtempDisposableSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const root = new URL('../../../', import.meta.url).pathname

/** What make would run for a target if nothing were built yet. */
function recipes(target: string): string[] {
  const settings = ['--dry-run', '--always-make', '--no-print-directory']
  return execFileSync('make', [...settings, target], { cwd: root, encoding: 'utf8' }).split('\n')
}

// `make run` packed as for a release: five minutes on two processors before the first start.
test.each([
  { target: 'run', level: 'fast' },
  { target: 'build-fast', level: 'fast' },
  { target: 'build', level: 'best' },
  { target: 'install', level: 'best' },
  { target: 'build/images/pause.tar.zst', level: 'best' },
])('make $target compresses everything with the level $level', ({ target, level }) => {
  const compressing = recipes(target).filter((line) => /scripts\/(pack|image)\.ts/.test(line))
  expect(compressing.length).toBeGreaterThan(0)
  expect(compressing.filter((line) => !line.endsWith(` ${level}`))).toEqual([])
})

function script(name: string, env: Readonly<Record<string, string>>) {
  const { status, stdout, stderr } = spawnSync(join(root, 'scripts', name), [], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return { status, stdout, stderr }
}

test.each(['v1.31.4', 'v1.99.0'])(
  'Kubernetes %s, which has no series of patches, is refused with those that have one',
  (version) => {
    const series = readdirSync(join(root, 'patches')).filter((name) => /^\d/.test(name))
    expect(series).toContain('1.37')
    const { status, stdout, stderr } = script('setup.sh', { K8S_VERSION: version })
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
    expect(stderr).toMatch(/^cannot build [^\n]+\n$/)
    expect(stderr).toContain(version)
    for (const minor of series) expect(stderr).toContain(minor)
  },
)

test('what is no version is refused with the form of one', () => {
  expect(script('setup.sh', { K8S_VERSION: '1.37' })).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('want vMAJOR.MINOR.PATCH'),
  })
  expect(script('download-kine.sh', { KINE_VERSION: 'newest' })).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('want vMAJOR.MINOR.PATCH'),
  })
})

test('SKIP_VALIDATE says that it skips, and false does not', () => {
  expect(script('validate.sh', { SKIP_VALIDATE: 'true' })).toEqual({
    status: 0,
    stdout: 'validate: skipped, as SKIP_VALIDATE=true\n',
    stderr: '',
  })
  // It begins, and ends where there is nothing to validate.
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-validate-'))
  cpSync(join(root, 'scripts'), join(directory.path, 'scripts'), { recursive: true })
  const { status, stdout } = spawnSync(join(directory.path, 'scripts/validate.sh'), [], {
    env: { PATH: process.env['PATH'] ?? '', SKIP_VALIDATE: 'false' },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  expect({ status, stdout }).toEqual({ status: 1, stdout: expect.stringMatching(/^\[1\/6\] module pins\n/) })
})

test('images are packed of what is built for each architecture, and for no other', () => {
  const lines = recipes('images')
  for (const arch of ['amd64', 'arm64', 'arm'])
    expect(lines).toContain(`ARCH=${arch} scripts/build-component.sh cni build/arch/${arch}/cni`)
  expect(lines.find((line) => line.includes('scripts/node-images.ts'))).toContain(
    ' amd64,arm64,arm zstd best ',
  )
})

test.each([
  ['ARCH=amd64 mips', 'cannot pack images for ARCH=amd64 mips: want some of amd64 arm64 arm'],
  ['LAYERS=xz', 'cannot pack images with LAYERS=xz: want zstd or gzip'],
])('images with %s are refused before anything is built for them', (setting, message) => {
  const { status, stdout, stderr } = spawnSync('make', ['--dry-run', 'images', setting], {
    cwd: root,
    encoding: 'utf8',
  })
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
  expect(stderr).toContain(message)
})

// ARCH is a variable of other builds, too, of kernels for one.
test('ARCH of the environment does not reach the programs of the artifact', () => {
  const given = ['--dry-run', '--always-make', 'build/bin/cni']
  const options = { cwd: root, encoding: 'utf8' } as const
  const plain = spawnSync('make', given, options)
  const set = spawnSync('make', given, { ...options, env: { ...process.env, ARCH: 'x86_64' } })
  expect(set).toMatchObject({ status: 0, stdout: plain.stdout })
  expect(readFileSync(join(root, 'Makefile'), 'utf8')).toContain('\nunexport ARCH\n')
})
