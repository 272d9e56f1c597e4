import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'

// The program is the real one; what its helper pods add (a file system of their own, fewer rights) is not needed for it.

const root = new URL('../../../', import.meta.url).pathname
const name = 'pvc-2f4c61f7-0a3b-4f0e-9d2e-5d0b6c1f8a77_default_data'
const wrongUse = 2
const permissions = 0o7777

let directory: string
let program: string
/** Where volumes are kept, the volume, and somebody's files beside it. */
let [storage, path, foreign] = ['', '', '']

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'k8s-volume-'))
  afterAll(() => rmSync(directory, { recursive: true, force: true }))
  const built = join(directory, 'pause')
  execFileSync(join(root, 'scripts/build-component.sh'), ['pause', built], { stdio: 'pipe' })
  program = join(directory, 'volume')
  symlinkSync('pause', program)
})

beforeEach(() => {
  const place = mkdtempSync(join(directory, 'case-'))
  storage = join(place, 'storage')
  path = join(storage, name)
  foreign = join(place, 'foreign')
  mkdirSync(storage, { mode: 0o755 })
  mkdirSync(foreign)
  writeFileSync(join(foreign, 'precious'), 'mine')
})

interface Asked {
  readonly volume?: string
  readonly mode?: string
  readonly paths?: string
  /** A shell's lines before it, in mounts of its own. */
  readonly prepare?: string
}

/** As the provisioner runs it. */
function run(action: string, { volume = path, mode = 'Filesystem', paths = storage, prepare }: Asked = {}) {
  const args = ['-p', volume, '-s', '1024', '-m', mode, '-a', action]
  const [command, all] =
    prepare === undefined
      ? [program, args]
      : ['unshare', ['--mount', 'sh', '-euc', `${prepare}\nexec "$@"`, 'sh', program, ...args]]
  const { status, stderr } = spawnSync(command, all, {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], VOLUME_PATHS: paths },
  })
  return { status, stderr }
}

const done = { status: 0, stderr: '' }
const modeOf = (file: string) => statSync(file).mode & permissions

test('a volume is for whoever a pod runs as, and no other user of the machine gets to it', () => {
  expect(run('create')).toEqual(done)
  expect([modeOf(path), modeOf(storage)]).toEqual([0o777, 0o700])
  // Again, as after a crash.
  chmodSync(path, 0o700)
  expect(run('create')).toEqual(done)
  expect(modeOf(path)).toBe(0o777)
})

test('a volume with data is taken as it is, and a directory that holds other things stays open', () => {
  mkdirSync(path, { mode: 0o750 })
  writeFileSync(join(path, 'data'), 'old')
  mkdirSync(join(storage, 'homes'))
  expect(run('create')).toEqual(done)
  expect([modeOf(path), modeOf(storage)]).toEqual([0o750, 0o755])
  expect(readFileSync(join(path, 'data'), 'utf8')).toBe('old')
})

test('a disk of its own has lost+found, and is closed all the same', () => {
  mkdirSync(join(storage, 'lost+found'))
  expect(run('create')).toEqual(done)
  expect(modeOf(storage)).toBe(0o700)
})

test.each(['a link', 'a file'])('%s in the place of a volume is none', (what) => {
  if (what === 'a link') symlinkSync(foreign, path)
  else writeFileSync(path, '')
  const { status, stderr } = run('create')
  expect(status).toBe(1)
  expect(stderr).toBe(`volume: cannot take ${name} as a volume: something else than a directory is there\n`)
})

test('a volume is removed with all that is in it, and one that is gone is removed', () => {
  mkdirSync(join(path, 'a/b/c'), { recursive: true })
  writeFileSync(join(path, 'a/b/file'), 'data')
  writeFileSync(join(path, 'a\nvolume: all is well\x1b[2J'), '')
  execFileSync('mkfifo', [join(path, 'pipe')])
  symlinkSync(foreign, join(path, 'a/link'))
  symlinkSync(join(foreign, 'precious'), join(path, 'to-file'))
  symlinkSync('..', join(path, 'a/up'))
  const closed = join(path, 'closed')
  mkdirSync(closed)
  writeFileSync(join(closed, 'file'), '')
  chmodSync(closed, 0)
  expect(run('delete')).toEqual(done)
  expect(readdirSync(storage)).toEqual([])
  expect(readdirSync(foreign)).toEqual(['precious'])
  expect(run('delete')).toEqual(done)
})

test('of a volume that is a link, the link is removed', () => {
  symlinkSync(foreign, path)
  const { status, stderr } = run('delete')
  expect({ status, stderr }).toEqual({
    status: 0,
    stderr: `volume: ${name} was a link: what it leads to stays\n`,
  })
  expect(existsSync(path)).toBe(false)
  expect(readdirSync(foreign)).toEqual(['precious'])
})

const refused: [string, (place: string) => string][] = [
  ['the root', () => '/'],
  ['what leads out', (place) => `${place}/../foreign`],
  ['what leads out in the middle', (place) => `${place}/x/../../foreign`],
  ['itself', (place) => place],
  ['itself with a slash', (place) => `${place}/`],
  ['a point', (place) => `${place}/.`],
  ['an empty part', (place) => `${place}//x`],
  ['no absolute path', () => name],
  ['a neighbour whose name begins alike', (place) => `${place}-of-others/x`],
  ['another directory', (place) => join(place, '../foreign')],
  ['a path that is too long', (place) => `${place}/${'x/'.repeat(2048)}x`],
  ['nothing', () => ''],
]

test.each(refused)('refused: %s', (_, pathOf) => {
  for (const action of ['create', 'delete']) {
    const { status, stderr } = run(action, { volume: pathOf(storage) })
    expect(status).toBe(wrongUse)
    expect(stderr).toMatch(/^volume: refused .*\n$/)
  }
  expect(readdirSync(foreign)).toEqual(['precious'])
  expect([existsSync(storage), existsSync(`${storage}-of-others`)]).toEqual([true, false])
})

test('a link on the way is not followed', () => {
  symlinkSync(foreign, join(storage, 'link'))
  const { status, stderr } = run('delete', { volume: join(storage, 'link/precious') })
  expect(status).toBe(1)
  expect(stderr).toContain('volume: cannot enter')
  expect(readdirSync(foreign)).toEqual(['precious'])
})

test('the message of a refusal is one line, whatever the path has in it', () => {
  const { stderr } = run('delete', { volume: '/etc\nvolume: ok\x1b' })
  expect(stderr).toMatch(/^volume: refused \/etc\\x0avolume: ok\\x1b: it is not below .*\n$/)
})

test('where volumes are kept are several directories, and those of a former one are known by their names', () => {
  expect(run('create', { paths: `/srv/none:${storage}` })).toEqual(done)
  expect(run('delete', { paths: '/srv/none' })).toEqual(done)
  const own = join(storage, 'team')
  mkdirSync(own)
  expect(run('delete', { volume: own, paths: '/srv/none' }).status).toBe(wrongUse)
  expect(run('delete', { volume: own, paths: `/srv/none:${storage}` })).toEqual(done)
  for (const paths of ['', '/', ':', '::/:']) {
    expect(run('delete', { volume: own, paths }).status).toBe(wrongUse)
  }
})

test.each([
  [{ action: 'create', mode: 'Block' }, 'cannot make a volume of mode Block'],
  [{ action: 'format', mode: 'Filesystem' }, 'usage: volume'],
])('wrong: %o', ({ action, mode }, says) => {
  const { status, stderr } = run(action, { mode })
  expect(status).toBe(wrongUse)
  expect(stderr).toContain(says)
})

/** In memory: the disk of a busy machine takes minutes for so many. */
const inMemory = (python: string) => `mount -t tmpfs -o mode=755 none ${storage}
mkdir ${path}
cd ${path}
python3 -c "${python}"`

test('a tree that is deeper than any path is removed with few open directories', () => {
  const python = `import os
for n in range(20_000):
  os.mkdir('d')
  os.mknod('f')
  os.chdir('d')`
  expect(run('delete', { prepare: `${inMemory(python)}\nulimit -n 100` })).toEqual(done)
})

test('a hundred thousand files are removed', () => {
  const python = `import os
for n in range(100):
  os.mkdir(f'{n}')
  for m in range(1000): os.mknod(f'{n}/{m}')`
  expect(run('delete', { prepare: inMemory(python) })).toEqual(done)
})

test('what is mounted in a volume is left, and named', () => {
  mkdirSync(join(path, 'a/mounted'), { recursive: true })
  writeFileSync(join(path, 'a/file'), '')
  const { status, stderr } = run('delete', { prepare: `mount --bind ${foreign} ${path}/a/mounted` })
  expect(status).toBe(1)
  expect(stderr).toBe('volume: cannot remove mounted: something is mounted there: unmount it\n')
  expect(readdirSync(foreign)).toEqual(['precious'])
  expect(run('delete')).toEqual(done)
})

test('a volume on which something is mounted is left', () => {
  mkdirSync(path)
  const { status, stderr } = run('delete', { prepare: `mount --bind ${foreign} ${path}` })
  expect(status).toBe(1)
  expect(stderr).toContain('something is mounted there')
  expect(readdirSync(foreign)).toEqual(['precious'])
})

test('a disk that is full or can only be read is told', () => {
  const full = run('create', { prepare: `mount -t tmpfs -o nr_inodes=1 none ${storage}` })
  expect(full).toEqual({ status: 1, stderr: `volume: cannot make ${name}: No space left on device\n` })
  const readOnly = `mkdir -p ${path}/a\nmount -t tmpfs -o ro none ${storage}`
  expect(run('create', { prepare: readOnly })).toEqual({
    status: 1,
    stderr: `volume: cannot make ${name}: Read-only file system\n`,
  })
})

test('a full disk gets its room back', () => {
  const prepare = `mount -t tmpfs -o size=1m none ${storage}
    mkdir -p ${path}/a/b
    for name in 1 2 3; do cat /dev/zero >${path}/a/b/$name 2>/dev/null || true; done`
  expect(run('delete', { prepare })).toEqual(done)
})

test('what cannot be removed is told a few times, and the rest is gone or left', () => {
  const files = Array.from({ length: 30 }, (_, index) => join(path, String(index)))
  const prepare = `mkdir ${path}
    touch ${files.join(' ')}
    for file in ${files.join(' ')}; do mount --bind $file $file; done`
  const { status, stderr } = run('delete', { prepare })
  expect(status).toBe(1)
  expect(stderr.trimEnd().split('\n')).toHaveLength(10)
})
