import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import type { Section } from '../../../scripts/artifact.ts'
import type { TarEntry } from '../../../src/base/tar.ts'
import {
  atomicLibrary,
  buildLauncher,
  file,
  folder,
  run,
  section,
  testDirectory,
  writeArtifact,
} from './artifact.ts'

// The launcher is the real one; its node is a script that tells how it was started, and needs the payload.

const tellEnvironment = `#!/bin/sh
[ "$K8S_LAUNCHER" = unpacked-not ] && exit 100
env
`
const stranger = 4242
const isRoot = process.geteuid?.() === 0

let directory: string
let launcher: Buffer

beforeAll(() => {
  directory = testDirectory()
  launcher = buildLauncher(directory)
})

const sections = (): Section[] => [
  section([folder('lib'), file('lib/main.js', ''), atomicLibrary()]),
  section([
    folder('bin'),
    file('bin/node', tellEnvironment),
    file('bin/kubectl', '#!/bin/sh\necho kubectl\n'),
  ]),
]

/** An artifact in a directory of its own, and a data directory that is not there yet. */
function prepare(given: { name: string; sections?: readonly Section[]; change?: (bytes: Buffer) => void }) {
  const place = join(directory, given.name.replaceAll(/\W+/g, '-'))
  mkdirSync(place)
  const path = join(place, 'k8s')
  writeArtifact({ sections: sections(), ...given, path, launcher })
  const dataDir = join(place, 'data-dir')
  return { place, path, dataDir, start: (env = {}) => run({ path, args: [`--data-dir=${dataDir}`], env }) }
}

/** What is unpacked, hidden leftovers too. */
const unpacked = (dataDir: string) =>
  existsSync(`${dataDir}/data`) ? readdirSync(`${dataDir}/data`).filter((name) => name !== '.lock') : []

test('a payload that was unpacked is run', () => {
  const { start, dataDir } = prepare({ name: 'plain' })
  for (let round = 0; round < 2; round++) {
    expect(start()).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(`${dataDir}/data/`),
      stderr: '',
    })
  }
  expect(unpacked(dataDir)).toHaveLength(1)
})

describe.skipIf(!isRoot)('before it runs as root', () => {
  const changes: Readonly<Record<string, (payload: string) => void>> = {
    'the directory belongs to another': (payload) => chownSync(payload, stranger, 0),
    'every user can write to it': (payload) => chmodSync(payload, 0o777),
    'a program belongs to another': (payload) => chownSync(`${payload}/bin/node`, stranger, 0),
    'every user can write to a program': (payload) => chmodSync(`${payload}/bin/node`, 0o757),
    'a group can write to a program': (payload) => chmodSync(`${payload}/bin/node`, 0o775),
    'a directory of programs belongs to another': (payload) => chownSync(`${payload}/bin`, stranger, 0),
    'what is not run itself belongs to another': (payload) =>
      chownSync(`${payload}/lib/main.js`, stranger, 0),
    'there is a link of another': (payload) => {
      symlinkSync('/tmp', `${payload}/lib/link`)
      lchownSync(`${payload}/lib/link`, stranger, 0)
    },
  }

  test.each(Object.entries(changes))('%s: a payload is unpacked anew, and says so', (name, change) => {
    const { start, dataDir } = prepare({ name })
    start()
    const payload = `${dataDir}/data/${unpacked(dataDir)[0]}`
    // What would run if the change went unseen.
    writeFileSync(`${payload}/bin/node`, '#!/bin/sh\necho replaced\n')
    change(payload)
    const outcome = start()
    expect(outcome).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^k8s: unpacked the payload anew: \//),
    })
    expect(outcome.stdout).not.toContain('replaced')
    expect(start()).toMatchObject({ code: 0, stderr: '' })
  })

  const places: Readonly<Record<string, { spoil: (place: string) => void; says: string }>> = {
    'a directory above it belongs to another': {
      spoil: (place) => chownSync(place, stranger, 0),
      says: `belongs to user ${stranger}`,
    },
    'every user can write to a directory above it': {
      spoil: (place) => chmodSync(place, 0o777),
      says: 'can be changed by every user',
    },
    'a group can write to a directory above it': {
      spoil: (place) => chmodSync(place, 0o775),
      says: 'can be changed by its group',
    },
    'the data directory belongs to another': {
      spoil: (place) => {
        mkdirSync(`${place}/data-dir`)
        chownSync(`${place}/data-dir`, stranger, 0)
      },
      says: `data-dir belongs to user ${stranger}`,
    },
    'the directory of payloads belongs to another': {
      spoil: (place) => {
        mkdirSync(`${place}/data-dir/data`, { recursive: true })
        chownSync(`${place}/data-dir/data`, stranger, 0)
      },
      says: `data-dir/data belongs to user ${stranger}`,
    },
    'the data directory is a link into what belongs to another': {
      spoil: (place) => {
        mkdirSync(`${place}/theirs/data`, { recursive: true })
        chownSync(`${place}/theirs`, stranger, 0)
        symlinkSync('theirs/data', `${place}/data-dir`)
      },
      says: `theirs belongs to user ${stranger}`,
    },
    'the data directory is a link of another': {
      spoil: (place) => {
        mkdirSync(`${place}/real`)
        symlinkSync(`${place}/real`, `${place}/data-dir`)
        lchownSync(`${place}/data-dir`, stranger, 0)
      },
      says: `data-dir belongs to user ${stranger}`,
    },
  }

  test.each(Object.entries(places))('%s: nothing is unpacked nor run', (name, { spoil, says }) => {
    const { start, place, dataDir } = prepare({ name })
    spoil(place)
    const outcome = start()
    expect(outcome).toMatchObject({ code: 1, stdout: '' })
    expect(outcome.stderr).toMatch(
      /^k8s: cannot run programs from [^\n]+ choose another directory with --data-dir\n$/,
    )
    expect(outcome.stderr).toContain(says)
    expect(unpacked(dataDir)).toEqual([])
  })

  test('a place that was spoiled after it was unpacked to is not used', () => {
    const { start, place } = prepare({ name: 'spoiled later' })
    expect(start()).toMatchObject({ code: 0 })
    chmodSync(place, 0o777)
    expect(start()).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('every user') })
    chmodSync(place, 0o755)
    expect(start()).toMatchObject({ code: 0 })
  })

  test("a link of root's own, and a sticky directory as /tmp, are used", () => {
    const { start, place, dataDir } = prepare({ name: 'link' })
    mkdirSync(`${place}/sticky`)
    chmodSync(`${place}/sticky`, 0o1777)
    mkdirSync(`${place}/sticky/real`)
    symlinkSync('sticky/../sticky/real', dataDir)
    expect(start()).toMatchObject({ code: 0, stderr: '' })
  })

  test('an ordinary user leaves alone what another can change, and uses a place of their own', () => {
    const { path, dataDir, place } = prepare({ name: 'ordinary' })
    run({ path, args: [`--data-dir=${dataDir}`] })
    const payload = `${dataDir}/data/${unpacked(dataDir)[0]}`
    writeFileSync(`${payload}/bin/kubectl`, '#!/bin/sh\necho replaced\n')
    chownSync(`${payload}/bin/kubectl`, stranger, 0)
    mkdirSync(`${place}/cache`)
    chmodSync(`${place}/cache`, 0o1777)
    const env = { XDG_CACHE_HOME: `${place}/cache` }
    const args = [`--data-dir=${dataDir}`, 'kubectl']
    expect(run({ path, args, env, asUser: true })).toMatchObject({ code: 0, stdout: 'kubectl\n' })
    expect(unpacked(`${place}/cache/k8s`)).toHaveLength(1)
  })
})

describe('an archive', () => {
  const link = (path: string, target: string): TarEntry => ({ path, type: 'symlink', target })
  const hostile: Readonly<Record<string, readonly TarEntry[]>> = {
    'goes up': [file('../escaped', 'x')],
    'goes up in the middle': [folder('bin'), file('bin/../../escaped', 'x')],
    'ends above': [folder('..')],
    'starts at the root': [file('/tmp/escaped', 'x')],
    'is a mark of the launcher': [file('.synced', '')],
    'is the directory itself': [folder('.')],
    'has an empty part': [folder('bin'), file('bin//x', 'x')],
    'is a link that leads out': [link('out', '../..'), file('out/escaped', 'x')],
    'is a link to the root': [link('out', '/tmp'), file('out/escaped', 'x')],
  }

  test.each(Object.entries(hostile))('with a path that %s is refused', (name, entries) => {
    const { start, dataDir, place } = prepare({ name, sections: [...sections(), section(entries)] })
    expect(start()).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('a path that leads out of it'),
    })
    expect(unpacked(dataDir)).toEqual([])
    expect(readdirSync(place).filter((found) => found === 'escaped')).toEqual([])
    expect(existsSync('/tmp/escaped')).toBe(false)
  })

  test('gives no program more rights than others have', () => {
    const programs = [folder('bin'), file('bin/tool', 'x', 0o6777)]
    const { start, dataDir } = prepare({ name: 'modes', sections: [...sections(), section(programs)] })
    expect(start()).toMatchObject({ code: 0, stderr: '' })
    expect(start()).toMatchObject({ code: 0, stderr: '' })
    expect(unpacked(dataDir)).toHaveLength(1)
  })

  test('that is larger than it says is refused', () => {
    const large = { ...section([file('large', Buffer.alloc(1 << 20))]), unpackedBytes: 1000 }
    const { start, dataDir } = prepare({ name: 'large', sections: [...sections(), large] })
    expect(start()).toMatchObject({ code: 1, stderr: expect.stringContaining('it is damaged') })
    expect(unpacked(dataDir)).toEqual([])
  })
})

describe('a digest that is wrong', () => {
  test('lets nothing appear, nor run from memory', () => {
    // Within the last section, which is unpacked and not run from memory, and within the second, which is.
    for (const index of [1, 2]) {
      const extra = section([folder('bin'), file('bin/extra', Buffer.from('x'.repeat(5000)))])
      const all = [...sections(), extra]
      const start =
        launcher.length + all.slice(0, index).reduce((sum, { content }) => sum + content.length, 0)
      const { dataDir, ...artifact } = prepare({
        name: `damaged ${index}`,
        sections: all,
        change: (bytes) => bytes.writeUInt8(bytes.readUInt8(start + 20) ^ 1, start + 20),
      })
      expect(artifact.start()).toMatchObject({
        code: 1,
        stdout: '',
        stderr: expect.stringContaining('it is damaged'),
      })
      expect(unpacked(dataDir)).toEqual([])
    }
  })

  test('of the whole is found before anything is read', () => {
    const { start, dataDir } = prepare({
      name: 'identity',
      change: (bytes) => bytes.writeUInt8(bytes.readUInt8(bytes.length - 20) ^ 1, bytes.length - 20),
    })
    expect(start()).toMatchObject({ code: 1, stderr: expect.stringContaining('this file is damaged') })
    expect(existsSync(dataDir)).toBe(false)
  })
})

test('what changes how node and its libraries work does not reach the daemon', () => {
  const { path, dataDir } = prepare({ name: 'environment' })
  const unwanted = {
    NODE_OPTIONS: '--require=/tmp/x.js',
    NODE_PATH: '/tmp',
    NODE_EXTRA_CA_CERTS: '/tmp/ca.crt',
    NODE_V8_COVERAGE: '/tmp/coverage',
    NODE_TLS_REJECT_UNAUTHORIZED: '0',
    NODE_REPL_EXTERNAL_MODULE: '/tmp/x.js',
    UV_THREADPOOL_SIZE: '1',
    LD_PRELOAD: '',
    LD_AUDIT: '',
    LD_DEBUG: '',
    OPENSSL_CONF: '/tmp/openssl.cnf',
    OPENSSL_MODULES: '/tmp',
    SSL_CERT_FILE: '/tmp/ca.crt',
    SSL_CERT_DIR: '/tmp',
    SSLKEYLOGFILE: '/tmp/keys',
    GLIBC_TUNABLES: 'glibc.malloc.check=0',
    MALLOC_PERTURB_: '1',
    MALLOC_TOP_PAD_: '1',
    GCONV_PATH: '/tmp',
    HOSTALIASES: '/tmp/hosts',
    RES_OPTIONS: 'debug',
    LOCPATH: '/tmp',
    K8S_NOTIFY_FD: '7',
    K8S_LAUNCHER: 'data-directory',
  }
  const wanted = {
    HTTPS_PROXY: 'http://127.0.0.1:1',
    NO_PROXY: 'x',
    K8S_NODE_NAME: 'a',
    NODENAME: 'kept',
    TZ: 'UTC',
  }
  const { stdout, code } = run({
    path,
    args: [`--data-dir=${dataDir}`],
    env: { ...unwanted, ...wanted, LD_LIBRARY_PATH: '/tmp' },
  })
  expect(code).toBe(0)
  const reached = Object.fromEntries(
    stdout
      .trim()
      .split('\n')
      .map((line) => line.split(/=(.*)/s).slice(0, 2)),
  )
  expect(Object.keys(unwanted).filter((name) => name in reached)).toEqual([])
  expect(reached).toMatchObject(wanted)
  expect(reached['LD_LIBRARY_PATH']).toBe(`${reached['K8S_PAYLOAD_DIR']}/lib`)
  expect(reached).toMatchObject({ MALLOC_ARENA_MAX: '1', MALLOC_TRIM_THRESHOLD_: '131072' })
})

test('neither does it reach the daemon that is run from memory', () => {
  const tell = '#!/bin/sh\n[ "$K8S_LAUNCHER" = unpacked-not ] && env && exit 0\n'
  const { path, dataDir } = prepare({
    name: 'memory',
    sections: [
      section([folder('lib'), file('lib/main.js', ''), atomicLibrary()]),
      section([folder('bin'), file('bin/node', tell)]),
    ],
  })
  const env = { NODE_OPTIONS: '--require=/tmp/x.js', OPENSSL_CONF: '/tmp/x', K8S_PAYLOAD_DIR: '/tmp' }
  const { stdout } = run({ path, args: [`--data-dir=${dataDir}`], env })
  expect(stdout).toContain('K8S_LAUNCHER=unpacked-not')
  for (const name of Object.keys(env)) expect(stdout).not.toContain(name)
})

test("an ordinary user's cache keeps one version, and what is no payload", () => {
  const { path, place, dataDir } = prepare({ name: 'first version' })
  const { path: second } = prepare({
    name: 'second version',
    sections: [...sections(), section([folder('lib'), file('lib/more', '')])],
  })
  const cache = `${place}/cache`
  mkdirSync(cache)
  chmodSync(cache, 0o1777)
  const start = (artifact: string) => {
    const env = { XDG_CACHE_HOME: cache }
    const outcome = run({ path: artifact, args: [`--data-dir=${dataDir}`, 'kubectl'], env, asUser: true })
    expect(outcome).toMatchObject({ code: 0, stdout: 'kubectl\n' })
    return unpacked(`${cache}/k8s`)
  }
  const [first] = start(path)
  mkdirSync(`${cache}/k8s/data/notes`)
  const after = start(second)
  expect(after).toHaveLength(2)
  expect(after).toContain('notes')
  expect(after).not.toContain(first)
})

test('the daemon is told where its artifact is, and no other', () => {
  const { path, start } = prepare({ name: 'told' })
  expect(start({ K8S_ARTIFACT: '/tmp/other' }).stdout.split('\n')).toContain(`K8S_ARTIFACT=${path}`)
})

test('where coverage is written is asked for by a name of ours alone', () => {
  const { start } = prepare({ name: 'coverage' })
  const lines = (env: Record<string, string>) => start(env).stdout.split('\n')
  expect(lines({ K8S_COVERAGE_DIR: '/coverage', NODE_V8_COVERAGE: '/other' })).toContain(
    'NODE_V8_COVERAGE=/coverage',
  )
  expect(lines({ K8S_COVERAGE_DIR: 'relative' }).filter((line) => line.startsWith('NODE_'))).toEqual([])
})

test.each([
  [['agent', '--token=k8s1-x', '--v=1'], 'agent --v=1', 'k8s1-x'],
  [['agent', '--token', 'k8s1-x', '--v=1'], 'agent --v=1', 'k8s1-x'],
  [['agent', '--token=a', '--token=b'], 'agent', 'b'],
  [['agent', '--token='], 'agent --token=', undefined],
  [['agent', '--token', '--v=1'], 'agent --token --v=1', undefined],
  [['agent', '--token'], 'agent --token', undefined],
  [['agent', '--token-file=x', '--', '--token=x'], 'agent --token-file=x -- --token=x', undefined],
])('a token in %j does not stay in the arguments', (args, left, token) => {
  const node = '#!/bin/sh\n[ "$K8S_LAUNCHER" = unpacked-not ] && exit 100\necho "$@"\nenv\n'
  const own = section([folder('bin'), file('bin/node', node)])
  const library = section([folder('lib'), file('lib/main.js', ''), atomicLibrary()])
  const { path, dataDir } = prepare({ name: `token ${args.join(' with ')}`, sections: [library, own] })
  const { stdout, stderr } = run({ path, args, env: { K8S_DATA_DIR: dataDir } })
  expect(stdout.split('\n')[0]).toMatch(new RegExp(`main.js ${left}$`))
  expect(/^K8S_TOKEN=(.*)$/m.exec(stdout)?.[1]).toBe(token)
  expect(stderr).toBe(
    token === undefined
      ? ''
      : 'k8s: warning: other users of this machine can read --token while it starts; use --token-file or K8S_TOKEN\n',
  )
})

test('only the launcher tells of nohup, of which node undoes what it has set', () => {
  const { path, dataDir, start } = prepare({ name: 'nohup' })
  const under = run({ path: 'nohup', args: [path, `--data-dir=${dataDir}`] })
  expect(under.stdout).toMatch(/^K8S_HANGUP_IGNORED=1$/m)
  expect(start({ K8S_HANGUP_IGNORED: '1' }).stdout).not.toContain('K8S_HANGUP_IGNORED')
})

test('closed descriptors are no place for what it opens, which would get what is said', () => {
  const told = join(directory, 'descriptors')
  const node = `#!/bin/sh
out=$(readlink /proc/$$/fd/1) err=$(readlink /proc/$$/fd/2)
echo "$(readlink /proc/$$/fd/0) $out $err" >>${told}
[ "$K8S_LAUNCHER" = unpacked-not ] && exit 100
exit 0
`
  const library = section([folder('lib'), file('lib/main.js', ''), atomicLibrary()])
  const own = section([folder('bin'), file('bin/node', node)])
  const { path, dataDir } = prepare({ name: 'closed', sections: [library, own] })
  const script = 'exec "$0" "$@" <&- >&- 2>&-'
  expect(run({ path: 'bash', args: ['-c', script, path, `--data-dir=${dataDir}`] }).code).toBe(0)
  const line = '/dev/null /dev/null /dev/null\n'
  expect(readFileSync(told, 'utf8')).toBe(`${line}${line}`)
})

test('a start without a name, which comes of passing no arguments at all, is none of a cluster', () => {
  const { path, dataDir } = prepare({ name: 'nameless' })
  const { status, stderr } = spawnSync(path, { argv0: '', encoding: 'utf8', env: { K8S_DATA_DIR: dataDir } })
  expect(stderr).toBe('k8s: cannot start without a name in argv[0]\n')
  expect(status).toBe(1)
  expect(unpacked(dataDir)).toEqual([])
})

test('a program of the payload that is gone is told with the way to have it again', () => {
  const { dataDir, start } = prepare({ name: 'gone' })
  start()
  const [payload = ''] = readdirSync(join(dataDir, 'data')).filter((name) => !name.startsWith('.'))
  const path = join(dataDir, 'data', payload)
  rmSync(join(path, 'bin/node'))
  const { code, stderr } = start()
  expect(stderr).toBe(
    `k8s: cannot start ${path}/bin/node: No such file or directory; if somebody has changed it, remove ${path}: it is unpacked again\n`,
  )
  expect(code).toBe(1)
  rmSync(path, { recursive: true })
  expect(start().code).toBe(0)
})
