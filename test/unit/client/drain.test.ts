import { describe, expect, test } from 'vitest'
import { type DrainOptions, drainNode, uncordonNode } from '../../../src/client/drain.ts'
import { planDrain } from '../../../src/client/drain-plan.ts'
import { type Answer, serve } from './fake-api.ts'

const replicaSet = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web', uid: 'r', controller: true }
const daemonSet = { ...replicaSet, kind: 'DaemonSet', name: 'logs' }

function pod(
  name: string,
  { owner = replicaSet as object | undefined, ...parts }: Record<string, unknown> = {},
) {
  const { annotations, ...rest } = parts
  return {
    metadata: {
      ...{ name, namespace: 'default', uid: `uid-${name}`, annotations },
      ...(owner !== undefined && { ownerReferences: [owner] }),
    },
    ...rest,
  }
}

describe('which pods go', () => {
  const none = { ignoreDaemonsets: false, deleteEmptydirData: false, force: false }
  const all = { ignoreDaemonsets: true, deleteEmptydirData: true, force: true }
  const alone = { ...pod('alone'), metadata: { name: 'alone', namespace: 'default', uid: 'a' } }
  const scratch = pod('scratch', { spec: { volumes: [{ name: 'a', emptyDir: {} }] } })
  const plan = (pods: readonly object[], rules = none, daemonSets: string[] = ['default/logs']) =>
    planDrain(pods as never, { ...rules, daemonSets: new Set(daemonSets) })
  const names = (found: ReturnType<typeof plan>) => found.evicted.map(({ metadata }) => metadata?.name)

  test('those of a controller that brings them back', () => {
    const found = plan([pod('web')])
    expect(names(found)).toEqual(['web'])
    expect(found).toMatchObject({ left: [], refusals: [] })
  })

  test.each<[string, object, string]>([
    [
      'one of a DaemonSet',
      pod('logs', { owner: daemonSet }),
      'default/logs (of a DaemonSet, which would bring',
    ],
    ['one of nobody', alone, 'default/alone (of no controller'],
    ['one with an emptyDir', scratch, 'default/scratch (with an emptyDir'],
  ])('%s is refused without its flag', (_, one, refusal) => {
    expect(plan([one]).refusals).toEqual([expect.stringContaining(refusal)])
    expect(plan([one], all).refusals).toEqual([])
  })

  test('those of a DaemonSet stay, but for one that is gone', () => {
    const logs = pod('logs', { owner: daemonSet })
    expect(plan([logs], all)).toMatchObject({
      evicted: [],
      left: [expect.stringContaining('default/logs stays')],
    })
    expect(names(plan([logs], all, []))).toEqual(['logs'])
    expect(plan([logs], { ...all, force: false }, []).refusals).toEqual([
      'default/logs (of a DaemonSet that is gone: --force gives it up)',
    ])
  })

  test('static pods stay, and those that have ended go in any case', () => {
    const mirror = pod('static', { annotations: { 'kubernetes.io/config.mirror': 'hash' } })
    const done = { ...alone, ...scratch, ...{ metadata: alone.metadata, status: { phase: 'Succeeded' } } }
    const found = plan([mirror, done])
    expect(names(found)).toEqual(['alone'])
    expect(found).toMatchObject({ left: [expect.stringContaining('it is a static pod')], refusals: [] })
  })

  test('many are named in short', () => {
    const many = Array.from({ length: 7 }, (_, index) => pod(`logs-${index}`, { owner: daemonSet }))
    expect(plan(many).refusals[0]).toContain('default/logs-4 and 2 more (of a DaemonSet')
  })
})

const nodePath = '/api/v1/nodes/a'
const podsPath = 'GET /api/v1/pods?fieldSelector=spec.nodeName%3Da&limit=250'
const evictionOf = (name: string) => `POST /api/v1/namespaces/default/pods/${name}/eviction`
const node = { metadata: { name: 'a', uid: 'n' }, spec: {} }
const listOf = (...items: object[]): Answer => ({ body: { items, metadata: {} } })
const busy: Answer = {
  status: 429,
  body: {
    message: "Cannot evict pod as it would violate the pod's disruption budget.",
    details: {
      causes: [{ reason: 'DisruptionBudget', message: 'The disruption budget web needs 3 healthy pods' }],
    },
  },
}

async function given(
  answers: Readonly<Record<string, readonly Answer[]>>,
  options: Partial<DrainOptions> = {},
) {
  const { kubeconfig, asked } = await serve({
    [`GET ${nodePath}`]: [{ body: node }],
    [`PATCH ${nodePath}`]: [{ body: node }],
    ...answers,
  })
  const said: string[] = []
  const whole: DrainOptions = {
    ...{
      ignoreDaemonsets: true,
      deleteEmptydirData: false,
      force: false,
      disableEviction: false,
      dryRun: false,
    },
    ...{ gracePeriodSeconds: undefined, timeoutMs: 0, signal: new AbortController().signal },
    ...{ print: (line: string) => said.push(line), intervalMs: 5, retryMs: 5 },
    ...options,
  }
  return { asked, said, kubeconfig, drain: () => drainNode(kubeconfig, 'a', whole) }
}

describe('a drain', () => {
  test('cordons, evicts, tries again while a budget is in the way, and is done when all are gone', async () => {
    const { asked, said, drain } = await given({
      [podsPath]: [listOf(pod('web')), listOf(pod('web')), listOf(pod('web')), listOf(pod('web')), listOf()],
      [evictionOf('web')]: [busy, busy, { status: 201, body: {} }],
    })
    await drain()
    expect(said).toEqual([
      'a takes no new pods.',
      'default/web waits: The disruption budget web needs 3 healthy pods',
      'default/web ends.',
      'a is drained.',
    ])
    expect(asked.indexOf(`PATCH ${nodePath}`)).toBeLessThan(asked.indexOf(evictionOf('web')))
    expect(asked.filter((one) => one === evictionOf('web'))).toHaveLength(3)
  })

  test('takes a pod of the same name that came since for another', async () => {
    const other = pod('web')
    other.metadata.uid = 'another'
    const { said, drain } = await given({
      [podsPath]: [listOf(pod('web')), listOf(pod('web')), listOf(other)],
      [evictionOf('web')]: [{ status: 409, body: { message: 'the UID in the precondition does not match' } }],
    })
    await drain()
    expect(said.at(-1)).toBe('a is drained.')
  })

  test('deletes instead, where it is told to', async () => {
    const deletion = 'DELETE /api/v1/namespaces/default/pods/web'
    const { asked, drain } = await given(
      { [podsPath]: [listOf(pod('web')), listOf(pod('web')), listOf()], [deletion]: [{ body: {} }] },
      { disableEviction: true, gracePeriodSeconds: 0 },
    )
    await drain()
    expect(asked).toContain(deletion)
  })

  test('changes nothing where it is refused, or only asked what it would do', async () => {
    const alone = pod('alone', { spec: { volumes: [{ name: 'a', emptyDir: {} }] } })
    const refused = await given({ [podsPath]: [listOf(alone)] })
    await expect(refused.drain()).rejects.toMatchObject({ code: 'DRAIN_REFUSED' })
    const dry = await given({ [podsPath]: [listOf(alone)] }, { dryRun: true, deleteEmptydirData: true })
    await dry.drain()
    expect(dry.said).toEqual(['default/alone would be evicted'])
    for (const { asked } of [refused, dry]) expect(asked.every((one) => one.startsWith('GET'))).toBe(true)
  })

  test('says what is left when it is interrupted', async () => {
    const stop = new AbortController()
    const told: string[] = []
    const print = (line: string) => {
      told.push(line)
      if (told.some((one) => one.includes('web waits')) && told.some((one) => one.includes('slow ends')))
        stop.abort()
    }
    const { drain } = await given(
      {
        ...{ [podsPath]: [listOf(pod('web'), pod('slow'))] },
        ...{ [evictionOf('web')]: [busy], [evictionOf('slow')]: [{ body: {} }] },
      },
      { signal: stop.signal, print },
    )
    await expect(drain()).rejects.toMatchObject({
      code: 'DRAIN_UNFINISHED',
      message:
        'cannot drain a: it was interrupted; it stays cordoned; default/slow still end; not evicted are default/web (The disruption budget web needs 3 healthy pods)',
    })
  })

  test('waits no longer than it is told to', async () => {
    const { drain } = await given(
      { [podsPath]: [listOf(pod('web'))], [evictionOf('web')]: [busy] },
      { timeoutMs: 60 },
    )
    await expect(drain()).rejects.toMatchObject({
      code: 'DRAIN_UNFINISHED',
      message: expect.stringContaining(
        'cannot drain a: 0.06 s are over; it stays cordoned; not evicted are default/web',
      ),
    })
  })

  test('ends with what the API server says no to', async () => {
    const { drain } = await given({
      [podsPath]: [listOf(pod('web'))],
      [evictionOf('web')]: [
        { status: 500, body: { message: 'This pod has more than one PodDisruptionBudget' } },
      ],
    })
    await expect(drain()).rejects.toMatchObject({
      code: 'DRAIN_UNFINISHED',
      cause: { message: expect.stringContaining('more than one PodDisruptionBudget') },
    })
  })

  test('needs a Node, as taking it back does', async () => {
    const { drain, kubeconfig } = await given({ [`GET ${nodePath}`]: [] })
    await expect(drain()).rejects.toMatchObject({ code: 'NODE_UNKNOWN' })
    await expect(uncordonNode(kubeconfig, 'a')).rejects.toMatchObject({ code: 'NODE_UNKNOWN' })
  })

  test('is taken back once', async () => {
    const cordoned = { body: { ...node, spec: { unschedulable: true } } }
    const { kubeconfig } = await given({ [`GET ${nodePath}`]: [cordoned, { body: node }] })
    expect(await uncordonNode(kubeconfig, 'a')).toBe(true)
    expect(await uncordonNode(kubeconfig, 'a')).toBe(false)
  })
})
