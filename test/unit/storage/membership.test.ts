import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { GoneMembers } from '../../../src/cluster/gone-members.ts'
import { Enrolment, type JoinQueue } from '../../../src/storage/enrolment.ts'
import { Learners } from '../../../src/storage/learners.ts'
import { Members } from '../../../src/storage/members.ts'
import { Membership } from '../../../src/storage/membership.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { until } from '../supervisor/support.ts'
import { FakeEtcd } from './fake-etcd.ts'

const tls = () => ({})
const log = silentLogger
const timing = { intervalMs: 20, lonelyIntervalMs: 20, awayIntervalMs: 20, settledMs: 0 }
const { signal } = new AbortController()

/** The view of one of the members. */
function viewOf(name: string, ownEndpoint: string, others: readonly string[] = []) {
  const remembered: string[][] = []
  const membership = new Membership({
    ...{ nodeName: name, peerUrl: () => `https://${name}:2380`, ownEndpoint, tls, others, log },
    remember: (urls) => remembered.push([...urls]),
  })
  const members = new Members({
    endpoints: membership.endpoints,
    preferred: ownEndpoint,
    tls,
    key: '/',
    log,
    timing,
  })
  const end = new AbortController()
  const running = Promise.all([members.watch(end.signal), membership.follow(members, end.signal)])
  onTestFinished(async () => {
    end.abort()
    await running
  })
  return { membership, members, remembered }
}

test('members that come and go are followed, and remembered; learners serve nobody', async () => {
  const etcd = new FakeEtcd()
  const a = await etcd.member('a')
  const { membership, members, remembered } = viewOf('a', a.clientUrl)
  await until(() => membership.listed.length === 1)
  expect(membership.own).toMatchObject({ name: 'a' })
  const b = await etcd.member('b', { isLearner: true })
  await until(() => membership.listed.length === 2)
  expect(members.endpoints).toEqual([a.clientUrl])
  b.isLearner = false
  await until(() => members.endpoints.length === 2)
  expect(members.endpoints).toEqual([a.clientUrl, b.clientUrl])
  expect(remembered).toEqual([[b.clientUrl]])
  await until(() => members.serves(b.clientUrl))
  expect(members.best).toBe(a.clientUrl)
  etcd.members.splice(1)
  await until(() => members.endpoints.length === 1)
  expect(remembered).toEqual([[b.clientUrl], []])
})

test('the own one is gone to whenever it serves, and others while it does not', async () => {
  const etcd = new FakeEtcd()
  const a = await etcd.member('a')
  const b = await etcd.member('b')
  const { members } = viewOf('a', a.clientUrl, [b.clientUrl])
  await until(() => members.serves(a.clientUrl) && members.serves(b.clientUrl))
  expect(members.best).toBe(a.clientUrl)
  expect(members.refuge(a.clientUrl)).toBeUndefined()
  // Who had gone there comes back.
  await until(() => members.refuge(b.clientUrl) === a.clientUrl)
  a.stop()
  await until(() => members.best === b.clientUrl)
  expect(members.refuge(a.clientUrl)).toBe(b.clientUrl)
  expect(members.refuge(b.clientUrl)).toBeUndefined()
  expect(members.awaySince(a.clientUrl)).toBeGreaterThan(0)
  expect(members.awaySince(b.clientUrl)).toBeUndefined()
})

test('a learner is promoted when it answers and etcd takes it, and dropped when it gets no further', async () => {
  const etcd = new FakeEtcd()
  const a = await etcd.member('a')
  const { membership } = viewOf('a', a.clientUrl)
  const learners = (stuckLimitMs: number) => new Learners({ membership, tls, log, stuckLimitMs })
  await until(() => membership.listed.length === 1)
  expect(await learners(0).look(signal)).toBe(false)

  const b = await etcd.member('b', { isLearner: true })
  etcd.refusal.promote = 'can only promote a learner member which is in sync with leader'
  await until(() => membership.listed.length === 2)
  const patient = learners(60_000)
  expect(await patient.look(signal)).toBe(true)
  expect(etcd.calls).toEqual([`promote ${b.id} refused`])
  delete etcd.refusal.promote
  await patient.look(signal)
  expect(etcd.find('b')).toMatchObject({ isLearner: false })
  await until(() => !membership.listed.some(({ isLearner }) => isLearner))

  etcd.calls.length = 0
  const c = await etcd.member('c', { isLearner: true })
  c.stop()
  await until(() => membership.listed.length === 3)
  const strict = learners(10)
  await strict.look(signal)
  expect(etcd.find('c')).toBeDefined()
  while (etcd.find('c') !== undefined) {
    await strict.look(signal)
    await setImmediate()
  }
  // A vote of the dead would be missing.
  expect(etcd.calls).toEqual([`remove ${c.id}`])
})

test('the member of a server without a Node that does not answer is removed, and none that is merely down, or joins', async () => {
  const etcd = new FakeEtcd()
  const a = await etcd.member('a')
  const down = await etcd.member('down')
  const gone = await etcd.member('gone')
  await etcd.member('new')
  const { membership, members } = viewOf('a', a.clientUrl)
  await until(() => members.endpoints.length === 4 && members.endpoints.every((url) => members.serves(url)))
  const asked = new Set<string>()
  const hasNode = (name: string) => Promise.resolve(asked.add(name) && name === 'down')
  const removed = new Set<string>()
  const removedNodes = () => Promise.resolve(removed)
  const care = new GoneMembers({ membership, hasNode, removedNodes, log, limitMs: 10 })
  await care.look(signal)
  expect(asked.size).toBe(0)
  down.stop()
  gone.stop()
  etcd.refusal.remove = 'etcdserver: unhealthy cluster'
  while (!etcd.calls.includes(`remove ${gone.id} refused`)) {
    await care.look(signal).catch(() => {})
    await setImmediate()
  }
  delete etcd.refusal.remove
  while (etcd.find('gone') !== undefined) {
    await care.look(signal)
    await setImmediate()
  }
  expect([...asked].sort()).toEqual(['down', 'gone'])
  expect(etcd.members.map(({ name }) => name)).toEqual(['a', 'down', 'new'])
  // By the command for that, whatever it does.
  removed.add('new').add('a')
  await care.look(signal)
  expect(etcd.members.map(({ name }) => name)).toEqual(['a', 'down'])
})

const noQueue: JoinQueue = { whileLeading: (run, until_) => run(until_) }

function enrolment(others: readonly string[], queue = noQueue) {
  const memberDir = temporaryDirectory()
  let joined = 0
  const given = new Enrolment({
    ...{ nodeName: 'c', peerUrl: () => 'https://c:2380', memberDir, queue, tls, log },
    others: () => others,
    onJoined: () => joined++,
  })
  onTestFinished(() => given.leaveQueue())
  return { enrolment: given, memberDir, timesJoined: () => joined }
}

test('a member that joins is added as a learner once, however often it is begun, and knows all others', async () => {
  const etcd = new FakeEtcd()
  const a = await etcd.member('a')
  const { enrolment: joining, timesJoined } = enrolment(['http://127.0.0.1:1', a.clientUrl])
  await joining.begin()
  expect(joining.initialCluster).toBe('a=https://a:2380,c=https://c:2380')
  await joining.begin()
  expect(etcd.calls).toEqual(['add https://c:2380 as a learner'])
  // As after a kill.
  const { enrolment: again } = enrolment([a.clientUrl])
  await again.begin()
  expect(again.initialCluster).toBe(joining.initialCluster)
  expect(etcd.calls).toHaveLength(1)
  joining.finish()
  joining.finish()
  expect(timesJoined()).toBe(1)
  expect(joining.isUnderWay).toBe(false)
})

test('an add of which nobody has heard is recognised, and a refused one is tried again', async () => {
  const etcd = new FakeEtcd()
  const a = await etcd.member('a')
  etcd.isAddLost = true
  const { enrolment: lost } = enrolment([a.clientUrl])
  await lost.begin()
  expect(etcd.members).toHaveLength(2)

  const other = new FakeEtcd()
  const b = await other.member('b')
  other.refusal.add = 'etcdserver: unhealthy cluster'
  const { enrolment: refused } = enrolment([b.clientUrl])
  const begun = refused.begin()
  await until(() => other.calls.length > 1)
  delete other.refusal.add
  await begun
  expect(other.calls.at(-1)).toBe('add https://c:2380 as a learner')
})

test('data of an earlier try are removed when the member is not listed any more, and only then', async () => {
  const etcd = new FakeEtcd()
  const a = await etcd.member('a')
  const { enrolment: first, memberDir } = enrolment([a.clientUrl])
  mkdirSync(join(memberDir, 'member/wal'), { recursive: true })
  await first.begin()
  expect(existsSync(join(memberDir, 'member'))).toBe(false)
  mkdirSync(join(memberDir, 'member/wal'), { recursive: true })
  await first.begin()
  expect(existsSync(join(memberDir, 'member'))).toBe(true)
})

test('one that had started and has lost its data is taken out and added anew', async () => {
  const etcd = new FakeEtcd()
  const a = await etcd.member('a')
  const lost = await etcd.member('c')
  const { enrolment: joining } = enrolment([a.clientUrl])
  await joining.begin()
  expect(etcd.calls).toEqual([`remove ${lost.id}`, 'add https://c:2380 as a learner'])
})

test('a machine with the address of another server does not take its place', async () => {
  const etcd = new FakeEtcd()
  const a = await etcd.member('a', { peerUrl: 'https://c:2380' })
  const { enrolment: joining } = enrolment([a.clientUrl])
  await expect(joining.begin()).rejects.toThrow('a is at https://c:2380 already')
  expect(etcd.calls).toEqual([])
})

test('others that do not answer are told', async () => {
  const { enrolment: joining } = enrolment(['http://127.0.0.1:1'])
  await expect(joining.begin()).rejects.toThrow('cannot call MemberList at http://127.0.0.1:1')
  const { enrolment: lost } = enrolment([])
  await expect(lost.begin()).rejects.toThrow('it is not known where the members of the others are')
})
