import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type Access, renderKubeconfig } from '../../../src/pki/kubeconfig.ts'
import { mergeIntoKubeconfig, removeFromKubeconfig } from '../../../src/pki/user-kubeconfig.ts'
import { temporaryDirectory } from '../datastore/support.ts'

const dataDir = '/var/lib/k8s'
const access: Access = {
  cluster: { server: 'https://127.0.0.1:6443', 'certificate-authority-data': 'Q0E=' },
  user: { 'client-certificate-data': 'Q0VSVA==', 'client-key-data': 'S0VZ' },
}
/** As kubectl writes one. */
const theirs = `apiVersion: v1
kind: Config
# the one at work
clusters:
- cluster:
    server: https://example.org:6443 # behind the VPN
  name: work
contexts:
- context:
    cluster: work
    namespace: team
    user: me
  name: work
current-context: work
preferences: {}
users:
- name: me
  user:
    token: "0123"
`

let dir: string
let path: string

beforeEach(() => {
  dir = temporaryDirectory()
  path = join(dir, 'config')
})

const merge = (given: Partial<Parameters<typeof mergeIntoKubeconfig>[0]> = {}) =>
  mergeIntoKubeconfig({ path, access, dataDir, ...given })
const remove = (given: Partial<Parameters<typeof removeFromKubeconfig>[0]> = {}) =>
  removeFromKubeconfig({ path, dataDir, ...given })
const text = () => readFileSync(path, 'utf8')

interface Named {
  readonly name: string
  readonly cluster?: object
  readonly user?: object
  readonly context?: { readonly cluster: string; readonly user: string; readonly namespace?: string }
}
const config = () =>
  parse(text()) as Record<'clusters' | 'users' | 'contexts', Named[]> & { 'current-context': string }

describe('a kubeconfig that is missing', () => {
  test('is made with its directory, for its owner alone', async () => {
    path = join(dir, 'home', '.kube', 'config')
    await merge()
    expect(statSync(join(dir, 'home', '.kube')).mode & 0o777).toBe(0o700)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(config()).toMatchObject({
      'current-context': 'k8s',
      clusters: [{ name: 'k8s', cluster: access.cluster }],
      users: [{ name: 'k8s', user: access.user }],
      contexts: [{ name: 'k8s', context: { cluster: 'k8s', user: 'k8s' } }],
    })
  })

  test('goes as it came', async () => {
    await merge()
    await remove()
    expect(readdirSync(dir)).toEqual([])
    await remove()
    expect(readdirSync(dir)).toEqual([])
  })

  test('is not written again while nothing changed, and gets what was renewed', async () => {
    await merge()
    const { ino } = statSync(path)
    await merge()
    expect(statSync(path).ino).toBe(ino)
    await merge({
      access: { ...access, user: { 'client-certificate-data': 'TkVX', 'client-key-data': 'TkVX' } },
    })
    expect(config().users).toMatchObject([{ name: 'k8s', user: { 'client-key-data': 'TkVX' } }])
    const after = statSync(path).ino
    await merge({
      access: { ...access, user: { 'client-certificate-data': 'TkVX', 'client-key-data': 'TkVX' } },
    })
    expect(statSync(path).ino).toBe(after)
  })
})

describe("a kubeconfig with somebody's clusters", () => {
  beforeEach(() => writeFileSync(path, theirs, { mode: 0o600 }))

  test('keeps them, its comments and its current context', async () => {
    await merge()
    const { clusters, users, contexts, ...rest } = config()
    expect(rest).toEqual({ apiVersion: 'v1', kind: 'Config', preferences: {}, 'current-context': 'work' })
    expect([clusters, users, contexts].map((list) => list.map(({ name }) => name))).toEqual([
      ['work', 'k8s'],
      ['me', 'k8s'],
      ['work', 'k8s'],
    ])
    for (const line of theirs.split('\n')) expect(text().split('\n')).toContain(line)
  })

  test('is byte for byte what it was when ours are taken out', async () => {
    await merge()
    await remove()
    expect(text()).toBe(theirs)
    await remove()
    expect(text()).toBe(theirs)
  })

  test('gives us names that are free', async () => {
    writeFileSync(path, theirs.replaceAll('work', 'k8s').replaceAll('me\n', 'k8s-2\n'))
    await merge()
    expect(config().contexts).toMatchObject([
      { name: 'k8s', context: { cluster: 'k8s', user: 'k8s-2' } },
      { name: 'k8s-3', context: { cluster: 'k8s-3', user: 'k8s-3' } },
    ])
    expect(config()['current-context']).toBe('k8s')
    await remove()
    expect(config().clusters).toHaveLength(1)
  })

  test('keeps what the user has changed of ours', async () => {
    await merge()
    const changed = text()
      .replaceAll('name: k8s\n  context', 'name: home\n  context')
      .replace('user: k8s\n', 'user: k8s\n    namespace: mine\n')
    writeFileSync(path, changed)
    await merge({ access: { ...access, cluster: { ...access.cluster, server: 'https://127.0.0.1:7443' } } })
    const [, ours] = config().contexts
    expect(ours).toMatchObject({ name: 'home', context: { cluster: 'k8s', user: 'k8s', namespace: 'mine' } })
    expect(config().clusters[1]).toMatchObject({ cluster: { server: 'https://127.0.0.1:7443' } })
    await remove()
    expect(text()).toBe(theirs)
  })

  test('has a place for each of two daemons', async () => {
    await merge()
    await merge({ dataDir: '/srv/other' })
    expect(config().clusters.map(({ name }) => name)).toEqual(['work', 'k8s', 'k8s-2'])
    await remove()
    expect(config().clusters.map(({ name }) => name)).toEqual(['work', 'k8s-2'])
    await remove({ dataDir: '/srv/other' })
    expect(text()).toBe(theirs)
  })

  test('has a place for each of two machines, whose homes are one', async () => {
    await merge({ id: 'one' })
    await merge({ id: 'two' })
    await merge({ id: 'one' })
    expect(config().clusters.map(({ name }) => name)).toEqual(['work', 'k8s', 'k8s-2'])
    await remove({ id: 'one' })
    expect(config().clusters.map(({ name }) => name)).toEqual(['work', 'k8s-2'])
    await remove({ id: 'two' })
    expect(text()).toBe(theirs)
  })

  test('in which an earlier version put no id is ours from then on', async () => {
    await merge({ id: 'one' })
    writeFileSync(path, text().replaceAll(/^ +id: one\n/gm, ''))
    await merge({ id: 'one' })
    expect(text().match(/id: one/g)).toHaveLength(3)
    await merge({ id: 'two' })
    expect(config().clusters).toHaveLength(3)
  })

  test('is left with no current context when that was ours', async () => {
    await merge()
    writeFileSync(path, text().replace('current-context: work', 'current-context: k8s'))
    await remove()
    expect(config()['current-context']).toBe('')
  })

  test('keeps its owner and its mode, but for what everybody could do', async () => {
    chownSync(path, 1234, 2345)
    chmodSync(path, 0o644)
    await merge()
    const { mode, uid, gid } = statSync(path)
    expect([mode & 0o777, uid, gid]).toEqual([0o640, 1234, 2345])
  })

  test('stays where a link leads to', async () => {
    const link = join(dir, 'link')
    symlinkSync('config', link)
    await merge({ path: link })
    expect(readlinkSync(link)).toBe('config')
    expect(lstatSync(path).isFile()).toBe(true)
    expect(config().clusters).toHaveLength(2)
    await remove({ path: link })
    expect(text()).toBe(theirs)
    expect(readlinkSync(link)).toBe('config')
  })

  test('may be JSON', async () => {
    await merge()
    // What JSON is is YAML, too.
    writeFileSync(path, JSON.stringify(parse(text())))
    await merge({ dataDir: '/srv/other' })
    expect(config().clusters).toHaveLength(3)
  })

  test('is not changed while somebody else changes it', async () => {
    writeFileSync(`${path}.lock`, '')
    await expect(merge()).rejects.toMatchObject({
      message: `cannot change the kubeconfig ${path}: somebody else is changing it`,
      remedy: expect.stringContaining(`rm ${path}.lock`),
    })
    expect(text()).toBe(theirs)
  })
})

test('a copy of an earlier version, without marks, is replaced; of another cluster it is not', async () => {
  const names = { cluster: 'k8s', user: 'admin', context: 'k8s' }
  writeFileSync(path, renderKubeconfig(access, names), { mode: 0o600 })
  await merge()
  expect(config().users.map(({ name }) => name)).toEqual(['k8s'])
  const foreign = { ...access, cluster: { ...access.cluster, 'certificate-authority-data': 'T1RIRVI=' } }
  writeFileSync(path, renderKubeconfig(foreign, names))
  await merge()
  expect(config().users.map(({ name }) => name)).toEqual(['admin', 'k8s-2'])
})

test('a link to a file that is missing stays a link', async () => {
  symlinkSync('elsewhere/config', path)
  await merge()
  expect(readlinkSync(path)).toBe('elsewhere/config')
  expect(statSync(join(dir, 'elsewhere', 'config')).mode & 0o777).toBe(0o600)
})

test.each(['', '\n', 'apiVersion: v1\nkind: Config\n', 'clusters: []\nusers: null\ncurrent-context: ""\n'])(
  'an empty one (%j) gets ours',
  async (empty) => {
    writeFileSync(path, empty)
    await merge()
    expect(config()).toMatchObject({ clusters: [{ name: 'k8s' }], 'current-context': 'k8s' })
  },
)

test.each([
  ['old', 'it is no map'],
  ['- a\n', 'it is no map'],
  ['a: [', 'Flow sequence'],
  ['a: 1\na: 2\n', 'Map keys must be unique'],
  ['kind: Config\n---\nkind: Config\n', 'Source contains multiple documents'],
  ['kind: Pod\nmetadata: {}\n', 'its kind is not Config'],
  ['password: secret\n', 'it has no cluster'],
  ['clusters: {}\n', 'its clusters are no list of names'],
  ['users: [{ user: {} }]\n', 'its users are no list of names'],
  ['contexts: [null]\n', 'its contexts are no list of names'],
  ['x: &x [{ name: work }]\nclusters: *x\n', 'its clusters are an alias'],
])('what is no kubeconfig is refused, and stays: %j', async (content, reason) => {
  writeFileSync(path, content)
  await expect(merge()).rejects.toThrow(`cannot change the kubeconfig ${path}: ${reason}`)
  await expect(remove()).rejects.toThrow(`cannot change the kubeconfig ${path}: ${reason}`)
  expect(text()).toBe(content)
  expect(readdirSync(dir)).toEqual(['config'])
})

test('what somebody else has put where everybody may is refused: our key would be his', async () => {
  const elsewhere = join(dir, 'home')
  mkdirSync(elsewhere)
  writeFileSync(join(elsewhere, 'config'), theirs)
  chmodSync(dir, 0o1777)
  writeFileSync(path, theirs, { mode: 0o600 })
  await merge()
  writeFileSync(path, theirs)
  chownSync(path, 1234, 1234)
  await expect(merge()).rejects.toThrow(`everybody may write in ${dir}, and ${path} is user 1234's`)
  expect(text()).toBe(theirs)
  rmSync(path)
  symlinkSync('home/config', path)
  lchownSync(path, 1234, 1234)
  await expect(merge()).rejects.toThrow(`everybody may write in ${dir}`)
  expect(readFileSync(join(elsewhere, 'config'), 'utf8')).toBe(theirs)
  // In his own directory it is what the operator has named.
  chmodSync(dir, 0o755)
  await merge()
  expect(config().clusters).toHaveLength(2)
})

test.each([
  ['a directory', () => mkdirSync(path), 'it is no file'],
  ['a fifo', () => void execFileSync('mkfifo', [path]), 'it is no file'],
  ['a link to itself', () => symlinkSync('config', path), 'its links lead in a circle'],
  ['longer than any', () => writeFileSync(path, `#${'x'.repeat(5 << 20)}`), 'it is too long'],
])('%s is refused', async (_, make, reason) => {
  make()
  await expect(merge()).rejects.toThrow(`cannot change the kubeconfig ${path}: ${reason}`)
})
