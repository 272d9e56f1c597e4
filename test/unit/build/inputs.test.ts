import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

// What scripts/inputs.ts says of a tree that was built from another Kubernetes than the pinned one.

const root = new URL('../../../', import.meta.url).pathname
const version = 'v1.36.4'
const busybox = 'what busybox is'
const packageName = 'busybox-static_1%3a1.35.0-4_amd64.deb'

let tree: string

const sha256 = (content: string | Buffer): string => createHash('sha256').update(content).digest('hex')

function write(path: string, content: string): void {
  mkdirSync(dirname(join(tree, path)), { recursive: true })
  writeFileSync(join(tree, path), content)
}

function writePackage(content: string): void {
  const control =
    'Package: busybox-static\nVersion: 1:1.35.0-4\nArchitecture: amd64\nMaintainer: a <a@b.example>\n'
  write('deb/DEBIAN/control', `${control}Description: busybox\n`)
  write('deb/bin/busybox', content)
  mkdirSync(join(tree, 'build/downloads'), { recursive: true })
  execFileSync('dpkg-deb', ['--build', 'deb', `build/downloads/${packageName}`], {
    cwd: tree,
    stdio: 'ignore',
  })
}

function inputs(path = process.env['PATH']) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(tree, 'scripts/inputs.ts')], {
    encoding: 'utf8',
    env: { PATH: path },
  })
  return { status, stdout, stderr }
}

beforeAll(() => {
  tree = mkdtempSync(join(tmpdir(), 'k8s-inputs-'))
  for (const name of ['scripts', 'components', 'package.json', 'package-lock.json']) {
    cpSync(join(root, name), join(tree, name), { recursive: true })
  }
  write('build/.k8s-version', `${version}\n`)
  write(`build/kubernetes/${version}/module/go.sum`, 'sums of what was built\n')
})
afterAll(() => rmSync(tree, { recursive: true, force: true }))

test('versions and digests are those of what was built', () => {
  write('build/bin/busybox', busybox)
  writePackage(busybox)
  const { status, stdout } = inputs()
  expect(status).toBe(0)
  const said = JSON.parse(stdout) as {
    kubernetes: string
    goModules: Record<string, string>
    debian: { name: string; version: string; sha256?: string; file: string; fileSha256: string }[]
  }
  expect(said.kubernetes).toBe(version)
  // It was that of the pinned version.
  expect(said.goModules).toMatchObject({
    [`build/kubernetes/${version}/module/go.sum`]: sha256('sums of what was built\n'),
    'components/runc/go.sum': sha256(readFileSync(join(root, 'components/runc/go.sum'))),
  })
  expect(said.goModules).not.toHaveProperty(['components/kubernetes/go.sum'])
  expect(said.debian.map(({ file }) => file)).toEqual(
    expect.arrayContaining(['libc.a', 'libatomic.so.1', 'cc1', 'as', 'ld', 'strip', 'busybox']),
  )
  expect(said.debian.at(-1)).toEqual({
    ...{ name: 'busybox-static', version: '1:1.35.0-4', file: 'busybox', fileSha256: sha256(busybox) },
    sha256: sha256(readFileSync(join(tree, 'build/downloads', packageName))),
  })
})

// A compiler of one's own, or another distribution: the build ended with a stack.
test('what no package has is told by its digest', () => {
  write('build/bin/busybox', busybox)
  writePackage(busybox)
  write('bin/dpkg-query', '#!/bin/sh\nexit 1\n')
  chmodSync(join(tree, 'bin/dpkg-query'), 0o755)
  const { status, stdout } = inputs(`${join(tree, 'bin')}:${process.env['PATH']}`)
  expect(status).toBe(0)
  const digest = expect.stringMatching(/^[0-9a-f]{64}$/)
  expect((JSON.parse(stdout) as { debian: object[] }).debian[0]).toEqual({
    file: 'libc.a',
    fileSha256: digest,
  })
})

test.each([
  ['has another busybox', () => writePackage('another busybox')],
  ['is damaged', () => write(`build/downloads/${packageName}`, 'no package')],
  ['is gone', () => rmSync(join(tree, 'build/downloads'), { recursive: true })],
])('a package of busybox that %s is not told as its origin', (_, spoil) => {
  write('build/bin/busybox', busybox)
  spoil()
  const { status, stdout, stderr } = inputs()
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toContain('Remove build/bin/busybox and run make again')
})
