import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { type Paths, paths as pathsOf } from '../../src/config/paths.ts'
import { callUnary } from '../../src/datastore/grpc/client.ts'
import { MessageWriter } from '../../src/datastore/grpc/protobuf/message-writer.ts'
import { adoptCopy } from '../../src/datastore/log/copy.ts'
import { idsOfMember } from '../../src/datastore/etcd-wal.ts'
import { prepareEtcdPki } from '../../src/pki/etcd.ts'
import { preparePki } from '../../src/pki/pki.ts'
import { finishReplacement } from '../../src/snapshot/replacement.ts'
import { keysDigest, type Succession } from '../../src/storage/succession.ts'
import { datastorePayload } from '../unit/cli/payload.ts'
import { type Outcome, runProcess } from '../unit/cli/run-cli.ts'
import { runDatastore } from '../unit/datastore/support.ts'
import { type Etcdctl, etcdCluster, etcdctl, runEtcd, temporaryDirectory } from './etcd-peer.ts'
import { compactedRevision, states, writeHistory } from './history.ts'

// What `k8s migrate` and `k8s cluster reset` make of a data directory, beside real etcds.

const built = new URL('../../build/bin/', import.meta.url).pathname
const dieAtStep = new URL('../fixtures/die-at-step.ts', import.meta.url).pathname
const fillAtStep = new URL('../fixtures/fill-at-step.ts', import.meta.url).pathname
const bump = 1_000_000_000
const identity = {
  ...{ nodeName: 'node-1', nodeIp: '10.1.2.3', advertiseAddress: '10.1.2.3', bindAddress: '0.0.0.0' },
  ...{ clusterDomain: 'cluster.local', serviceCidr: '10.96.0.0/16', tlsSan: [] },
}

let paths: Paths
let payload: string

beforeEach(async () => {
  paths = pathsOf({ dataDir: join(temporaryDirectory(), 'data') })
  await makeDataDirectory()
  payload = datastorePayload()
  mkdirSync(join(payload, 'bin'))
  symlinkSync(join(built, 'etcd-file'), join(payload, 'bin', 'etcd-file'))
  for (const name of ['etcd', 'etcd-restore'])
    symlinkSync(join(built, 'kubernetes'), join(payload, 'bin', name))
})

async function makeDataDirectory(): Promise<void> {
  for (const dir of [paths.databaseDir, paths.runDir]) mkdirSync(dir, { recursive: true })
  await preparePki({ dir: paths.pkiDir, ...identity })
  writeRecord(paths.clusterFacts, { settings: { 'server-mode': 'single', 'service-cidr': '10.96.0.0/16' } })
  writeRecord(paths.nodeRecord, {
    settings: { role: 'server', 'node-name': 'node-1' },
    address: '10.1.2.3',
  })
}

describe('k8s migrate', () => {
  test('to an etcd and back, keys have the same revisions, versions and leases', async () => {
    const before = await fill()
    const there = await run('migrate', '--to=ha')
    expect(there.stdout).toContain(`revision ${before.revision + 1}.`)
    expect(facts()).toEqual({
      ...{ 'server-mode': 'ha', 'cluster-init': 'true', 'etcd-prefix': '/registry' },
      'service-cidr': '10.96.0.0/16',
    })
    expect(existsSync(paths.database)).toBe(false)
    expect(readdirSync(paths.pkiDir)).toEqual(expect.arrayContaining(['etcd-ca.crt', 'etcd-ca.key']))
    await withEtcd(async (ctl) => {
      const { revision, kvs, leases } = await states(ctl)
      expect({ revision, leases, kvs: kvs.slice(0, -1) }).toEqual({
        ...{ revision: before.revision + 1, leases: before.leases, kvs: before.kvs },
      })
      await expect(ctl('get', 'a', `--rev=${compactedRevision - 1}`)).rejects.toThrow(/has been compacted/)
      await ctl('put', 'a', 'later')
    })
    const back = await run('migrate', '--to=single')
    expect(back.stdout).toContain(`revision ${before.revision + 2}.`)
    expect(facts()).toEqual({ 'server-mode': 'single', 'service-cidr': '10.96.0.0/16' })
    expect(existsSync(paths.memberDir)).toBe(false)
    expect(readdirSync(paths.pkiDir).filter((name) => name.startsWith('etcd'))).toEqual([])
    const { datastore, ctl } = await serve()
    expect(JSON.parse(await ctl('get', 'a', '-w', 'json'))).toMatchObject({
      header: { revision: before.revision + 2 },
    })
    await datastore.stop()
    // Each has its own place, with all that was there.
    const kept = readdirSync(join(paths.dataDir, 'replaced')).map((name) =>
      readdirSync(join(paths.dataDir, 'replaced', name)).sort(),
    )
    expect(kept).toEqual([
      ['cluster.json', 'db', 'pki'],
      ['cluster.json', 'etcd', 'pki'],
    ])
    // The etcd knows already whose it is.
    expect((await run('migrate', '--to=ha')).stdout).toContain(`revision ${before.revision + 2}.`)
  })

  test('a compaction beyond the last write, as after a restore, holds on the other side', async () => {
    const { revision } = await fill()
    adoptCopy({ path: paths.database }, { revision: revision + bump })
    await run('migrate', '--to=ha')
    await withEtcd(async (ctl) => {
      expect(await revisionOf(ctl)).toBe(revision + bump + 1)
      await expect(ctl('get', 'a', `--rev=${revision}`)).rejects.toThrow(/has been compacted/)
    })
  })

  test('what an etcd has acknowledged that was killed is there afterwards, under another prefix, too', async () => {
    await fill()
    await run('migrate', '--to=ha')
    const record = JSON.parse(readFileSync(paths.clusterFacts, 'utf8'))
    writeRecord(paths.clusterFacts, { settings: { ...record.settings, 'etcd-prefix': '/mine' } })
    let last = 0
    await withEtcd(async (ctl) => {
      await ctl('put', '/mine/kept', 'yes')
      await ctl('put', '/others/key', '1')
      last = await revisionOf(ctl)
    })
    await run('migrate', '--to=single')
    const { ctl, datastore } = await serve()
    expect(await ctl('get', '', '--from-key')).toBe('/registry/kept\nyes\n')
    // None that was given to a key of others is given again.
    expect(await revisionOf(ctl)).toBe(last)
    await datastore.stop()
  })

  test.each(['ha', 'single'])(
    'to %s, killed at any of its steps, it leaves the one or the other',
    async (to) => {
      const { revision } = await fill()
      if (to === 'single') await run('migrate', '--to=ha')
      const from = to === 'ha' ? 'single' : 'ha'
      const kill = (step: number) =>
        k8s(['migrate', `--to=${to}`], { NODE_OPTIONS: `--import=${dieAtStep}`, K8S_TEST_STEP: String(step) })
      const pending = join(paths.dataDir, 'restore')
      // All that comes before the decision leaves no trace; a prime number meets one part or another of it.
      let step = 0
      for (; !existsSync(pending) && modeOf() === from; step += 13) {
        const { code } = await kill(step)
        expect(code).toBeNull()
        if (existsSync(pending)) break
        expect(modeOf()).toBe(from)
        expect(existsSync(to === 'ha' ? paths.database : join(paths.memberDir, 'member'))).toBe(true)
      }
      expect(step).toBeGreaterThan(20)
      // From then on each step brings it nearer to its end, whoever takes it.
      for (let next = 0; existsSync(pending); next++) {
        await kill(next)
        expect(next).toBeLessThan(60)
      }
      expect(await finishReplacement(paths, undefined)).toBeUndefined()
      expect(modeOf()).toBe(to)
      const [kept = '', ...more] = readdirSync(join(paths.dataDir, 'replaced')).toReversed()
      expect(more).toHaveLength(to === 'ha' ? 0 : 1)
      expect(readdirSync(join(paths.dataDir, 'replaced', kept)).sort()).toEqual(
        ['cluster.json', to === 'ha' ? 'db' : 'etcd', 'pki'].sort(),
      )
      for (const left of ['restore.preparing', to === 'ha' ? 'db/state.db' : 'etcd'])
        expect(existsSync(join(paths.dataDir, left))).toBe(false)
      if (to === 'ha') await withEtcd(async (ctl) => expect(await revisionOf(ctl)).toBe(revision + 1))
      else {
        const { ctl, datastore } = await serve()
        expect(await revisionOf(ctl)).toBe(revision + 1)
        await datastore.stop()
      }
    },
  )

  test('on a disk that fills at any of its steps, it leaves the one or the other, and goes on when there is room', async () => {
    const { revision } = await fill()
    const disk = await smallDisk(paths.dataDir)
    for (const [command, from, to, stride] of [
      [['migrate', '--to=ha'], 'single', 'ha', 60],
      [['cluster', 'reset'], 'ha', 'ha', 20],
      [['migrate', '--to=single'], 'ha', 'single', 60],
    ] as const) {
      let failures = 0
      for (let step = 3; ; step += stride) {
        const { code, stderr } = await k8s(
          command,
          { NODE_OPTIONS: `--import=${fillAtStep}`, K8S_TEST_STEP: String(step), K8S_TEST_DISK: disk.mount },
          disk.enter,
        )
        const isFull = existsSync(join(disk.path, 'ballast'))
        rmSync(join(disk.path, 'ballast'), { recursive: true, force: true })
        if (code === 0) break
        failures++
        expect([code, isFull, stderr]).toEqual([
          1,
          true,
          expect.stringMatching(
            /^k8s: cannot (migrate|reset the cluster): the disk of \S+ is full: .* nothing has changed\n$/,
          ),
        ])
        expect(modeOf(disk.path)).toBe(from)
        expect(readdirSync(disk.path).filter((name) => name.startsWith('restore'))).toEqual([])
      }
      expect(failures).toBeGreaterThan(1)
      expect(modeOf(disk.path)).toBe(to)
    }
    const { stdout } = await k8s(['db', 'status'], {}, disk.enter)
    expect(stdout).toContain(`${revision + bump + 2}`)
  })

  test('refuses what is damaged, what is not known, and what is not on one file system', async () => {
    await fill()
    const refused = async (...args: string[]) => {
      const before = readdirSync(paths.dataDir).sort()
      const { code, stderr } = await k8s(args)
      expect([code, readdirSync(paths.dataDir).sort()]).toEqual([1, before])
      return stderr
    }
    expect(await refused('cluster', 'reset')).toMatch(/its one server keeps it in a database of its own/)
    const record = readFileSync(paths.nodeRecord, 'utf8')
    writeRecord(paths.nodeRecord, { settings: { role: 'server' } })
    expect(await refused('migrate', '--to=ha')).toMatch(/the address of this server is not known/)
    writeFileSync(paths.nodeRecord, record)
    const key = join(paths.pkiDir, 'service-account.key')
    const words = readFileSync(key)
    writeFileSync(key, '')
    expect(await refused('migrate', '--to=ha')).toMatch(/the key file .*service-account.key is empty/)
    writeFileSync(key, words)
    await run('migrate', '--to=ha')
    const { stderr } = await k8s(['snapshot', 'restore', '/none'])
    expect(stderr).toMatch(/k8s cluster reset --from-snapshot/)
    renameSync(join(paths.memberDir, 'member/wal'), join(paths.dataDir, 'elsewhere'))
    expect(await refused('cluster', 'reset')).toMatch(/there is no log in .*member\/wal, or it is damaged/)
    renameSync(join(paths.dataDir, 'elsewhere'), join(paths.memberDir, 'member/wal'))
    writeFileSync(join(paths.memberDir, 'member/snap/db'), 'x'.repeat(100_000))
    expect(await refused('migrate', '--to=single')).toMatch(
      /cannot read the data of etcd: .*invalid database/,
    )
    expect(await refused('cluster', 'reset')).toMatch(
      /go on from a snapshot: k8s cluster reset --from-snapshot/i,
    )
  })
})

describe('k8s cluster reset', () => {
  test('goes on with all that the member has, as another cluster, beyond all that was seen', async () => {
    const { revision } = await fill()
    await run('migrate', '--to=ha')
    let former = ''
    await withEtcd(async (ctl, endpoint) => {
      await ctl('put', 'a', 'last')
      await raiseNoSpace(endpoint)
      former = BigInt(await clusterId(ctl)).toString(16)
    })
    expect(idsOfMember(paths.memberDir)?.clusterId?.toString(16)).toBe(former)
    const node = JSON.parse(readFileSync(paths.nodeRecord, 'utf8'))
    writeRecord(paths.nodeRecord, { ...node, otherMembers: ['http://127.0.0.1:1'], isJoining: true })
    const { stdout } = await run('cluster', 'reset')
    expect(stdout).toMatch(/^This server is the only one of its cluster, with all that it had\.\n/)
    await withEtcd(async (ctl) => {
      expect(await ctl('get', 'a')).toBe('a\nlast\n')
      expect(await ctl('alarm', 'list')).toBe('')
      const now = BigInt(await clusterId(ctl)).toString(16)
      expect(now).not.toBe(former)
      // Whoever comes back with data of then learns that they are of the past.
      expect(await successionOf(ctl)).toEqual({ former: [former], keys: await keysDigest(paths.pkiDir) })
      former += ` ${now}`
      expect(await revisionOf(ctl)).toBe(revision + 3 + bump)
      await expect(ctl('watch', 'a', `--rev=${revision + 2}`)).rejects.toThrow(/has been compacted/)
      expect((await ctl('lease', 'list')).split('\n')[0]).toBe('found 2 leases')
    })
    expect(modeOf()).toBe('ha')
    expect(JSON.parse(readFileSync(paths.nodeRecord, 'utf8'))).toEqual({ ...node, otherMembers: [] })
    writeRecord(paths.nodeRecord, { ...node, hasLeft: true })
    expect((await k8s(['cluster', 'reset'])).stderr).toMatch(/this server has left its cluster/)
    writeRecord(paths.nodeRecord, node)
    await run('cluster', 'reset')
    await withEtcd(async (ctl) => expect((await successionOf(ctl)).former.join(' ')).toBe(former))
  })

  test('of three members one goes on, and the others, as many as there are, are none of it', async () => {
    writeRecord(paths.clusterFacts, {
      settings: { 'server-mode': 'ha', 'cluster-init': 'true', 'etcd-prefix': '/registry' },
    })
    await prepareEtcdPki({ dir: paths.pkiDir, isNew: true, nodeIp: identity.nodeIp })
    const others = [1, 2].map((number) => join(paths.dataDir, '..', `other-${number}`))
    const cluster = await etcdCluster([paths.memberDir, ...others])
    for (const member of cluster) member.start()
    const [own, second] = cluster.map(({ endpoint }) => etcdctl(endpoint))
    await until(() => own!('put', 'a', '1'))
    await own!('put', 'a', '2')
    // A follower hears a moment later what the others have agreed on.
    await until(async () =>
      expect(await own!('get', 'a', '--print-value-only', '--consistency=s')).toBe('2\n'),
    )
    await cluster[0]!.stop('SIGTERM')
    for (const member of cluster) await member.stop()
    const former = idsOfMember(paths.memberDir)?.clusterId?.toString(16)
    expect((await k8s(['migrate', '--to=single'])).stderr).toMatch(
      /^k8s: cannot migrate to a server alone: its etcd has other members: m[12], m[12]\. Have those servers leave/,
    )
    expect((await run('cluster', 'reset')).stdout).toMatch(/\nNo members any more: m[12], m[12]\.\n/)
    for (const member of cluster.slice(1)) member.start()
    await until(() => second!('put', 'a', 'of the former'))
    await withEtcd(async (ctl) => {
      expect(await ctl('get', 'a', '--print-value-only')).toBe('2\n')
      expect((await ctl('member', 'list')).trim().split('\n')).toHaveLength(1)
      expect((await successionOf(ctl)).former).toEqual([former])
      expect(await revisionOf(ctl)).toBeGreaterThan(bump)
    })
  })

  test('goes on with a snapshot, again and again, with its keys', async () => {
    const { revision } = await fill()
    const saved = await run('snapshot', 'save')
    const [file = ''] = saved.stdout.split('\n', 1)
    await run('migrate', '--to=ha')
    const authority = readFileSync(join(paths.pkiDir, 'etcd-ca.crt'), 'utf8')
    rmSync(join(paths.memberDir, 'member'), { recursive: true })
    expect((await k8s(['cluster', 'reset'])).stderr).toMatch(/there are no data of etcd in/)
    let former = ''
    for (const times of [1, 2]) {
      writeFileSync(join(paths.pkiDir, 'service-account.key'), 'another')
      await run('cluster', 'reset', `--from-snapshot=${file}`)
      expect(readFileSync(join(paths.pkiDir, 'service-account.key'), 'utf8')).not.toBe('another')
      expect(readFileSync(join(paths.pkiDir, 'etcd-ca.crt'), 'utf8')).toBe(authority)
      expect(facts()).toMatchObject({ 'server-mode': 'ha', 'cluster-init': 'true' })
      await withEtcd(async (ctl) => {
        expect(await ctl('get', 'a')).toBe('')
        expect(await ctl('get', 'other')).toBe('other\n1\n')
        expect(await revisionOf(ctl)).toBeGreaterThan(revision + bump * times)
        expect(await ctl('get', '/k8s.local/cluster/registry', '--print-value-only')).toMatch(
          /^[0-9a-f]{64}\n/,
        )
        expect((await successionOf(ctl)).former).toEqual(former === '' ? [] : [former])
        former = BigInt(await clusterId(ctl)).toString(16)
      })
    }
    expect((await k8s(['cluster', 'reset', '--from-snapshot=/none'])).stderr).toMatch(/cannot .*\/none/)
  })
})

function writeRecord(path: string, record: object): void {
  writeFileSync(path, JSON.stringify({ formatVersion: 1, ...record }), { mode: 0o600 })
}

function facts(dataDir = paths.dataDir): Record<string, string> {
  const { clusterFacts } = pathsOf({ dataDir })
  return (JSON.parse(readFileSync(clusterFacts, 'utf8')) as { settings: Record<string, string> }).settings
}

function modeOf(dataDir = paths.dataDir): string | undefined {
  return facts(dataDir)['server-mode']
}

async function revisionOf(ctl: Etcdctl): Promise<number> {
  const { header } = JSON.parse(await ctl('get', 'a', '-w', 'json')) as { header: { revision: number } }
  return header.revision
}

async function successionOf(ctl: Etcdctl): Promise<Succession> {
  return JSON.parse(await ctl('get', '/k8s.local/succession/registry', '--print-value-only')) as Succession
}

/** Members that begin have no leader yet. */
async function until(act: () => Promise<unknown>): Promise<void> {
  await expect
    .poll(
      () =>
        act().then(
          () => true,
          () => false,
        ),
      { timeout: 60_000, interval: 100 },
    )
    .toBe(true)
}

/** As a member did that is lost: AlarmRequest with ACTIVATE, its id, and NOSPACE. */
async function raiseNoSpace(address: string): Promise<void> {
  const request = new MessageWriter()
  for (const [tag, value] of [
    [0x08, 1],
    [0x10, 123],
    [0x18, 1],
  ] as const)
    request.uint(tag, value)
  const framed = request.framed()
  await callUnary({ server: { address }, method: '/etcdserverpb.Maintenance/Alarm', framed })
}

/** As text: it is no number that JavaScript has. */
async function clusterId(ctl: Etcdctl): Promise<string> {
  return /"cluster_id":(\d+)/.exec(await ctl('get', 'a', '-w', 'json'))?.[1] ?? ''
}

/** A small disk with what is in a directory, mounted at the same place for whoever enters. */
async function smallDisk(mount: string) {
  const script = `mount -t tmpfs -o size=900m,nr_inodes=500 none "$2" && cp -a "$1/." "$2" && echo ready && cat`
  const copy = temporaryDirectory()
  cpSync(mount, copy, { recursive: true })
  const holder = spawn('unshare', ['--mount', 'sh', '-c', script, 'sh', copy, mount], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  onTestFinished(() => void holder.stdin.end())
  await once(holder.stdout, 'data')
  return {
    mount,
    path: `/proc/${holder.pid}/root${mount}`,
    enter: ['nsenter', `--mount=/proc/${holder.pid}/ns/mnt`],
  }
}

async function k8s(
  args: readonly string[],
  environment: Record<string, string> = {},
  through: readonly string[] = [],
): Promise<Outcome> {
  return runProcess({
    args: [...args, `--data-dir=${paths.dataDir}`],
    environment: { K8S_PAYLOAD_DIR: payload, ...environment },
    through,
  })
}

/** A command that has to succeed. */
async function run(...args: string[]): Promise<Outcome> {
  const outcome = await k8s(args)
  expect(outcome).toMatchObject({ code: 0, stderr: '' })
  return outcome
}

async function serve() {
  const datastore = await runDatastore({ path: paths.database })
  return { datastore, ctl: etcdctl(datastore.listening) }
}

/** A history of all that a datastore may have; returns what there is then. */
async function fill(): Promise<Awaited<ReturnType<typeof states>>> {
  const { datastore, ctl } = await serve()
  await writeHistory(datastore.listening)
  const before = await states(ctl)
  await datastore.stop()
  return before
}

async function withEtcd(act: (ctl: Etcdctl, endpoint: string) => Promise<void>): Promise<void> {
  const etcd = await runEtcd(paths.memberDir)
  await act(etcdctl(etcd.endpoint), etcd.endpoint)
  await etcd.stop()
}
