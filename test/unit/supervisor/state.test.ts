import { describe, expect, test } from 'vitest'
import { idle, next, type ProcessEvent, type ProcessState } from '../../../src/supervisor/state.ts'

/** What is outside of the state machine: what the kernel and the timer do with what it asked for. */
interface World {
  readonly spawning: boolean
  readonly pid: number | undefined
  readonly timer: boolean
  readonly wanted: boolean
  readonly pids: number
}

const stillWorld: World = { spawning: false, pid: undefined, timer: false, wanted: false, pids: 0 }

const alwaysPossible = (['start', 'stop', 'ready', 'notReady', 'silent'] as const).map((type) => ({ type }))

/** Every event that can happen now: users ask at any time, the kernel and the timer when they have cause. */
function possibleEvents({ spawning, pid, timer, pids }: World): ProcessEvent[] {
  const events: ProcessEvent[] = [...alwaysPossible]
  if (spawning) events.push({ type: 'spawned', pid: pids + 1 }, { type: 'notSpawned' })
  if (pid !== undefined) events.push({ type: 'exited', healthy: true }, { type: 'exited', healthy: false })
  if (timer) events.push({ type: 'retry' })
  return events
}

function nextWorld(world: World, event: ProcessEvent, before: ProcessState, after: ProcessState): World {
  const entered = after.phase !== before.phase
  return {
    spawning:
      event.type === 'spawned' || event.type === 'notSpawned'
        ? false
        : world.spawning || (entered && after.phase === 'starting'),
    pid: event.type === 'spawned' ? event.pid : event.type === 'exited' ? undefined : world.pid,
    timer: after.phase === 'backoff',
    wanted:
      event.type === 'start'
        ? world.wanted || entered
        : event.type === 'stop'
          ? false
          : world.wanted && after.phase !== 'stopped',
    pids: event.type === 'spawned' ? event.pid : world.pids,
  }
}

function check(state: ProcessState, world: World): void {
  expect('pid' in state ? state.pid : undefined).toBe(world.pid)
  expect(state.phase === 'starting').toBe(world.spawning && world.wanted)
  expect(['running', 'ready', 'unresponsive'].includes(state.phase)).toBe(
    world.pid !== undefined && world.wanted,
  )
  expect(state.phase === 'stopping').toBe(!world.wanted && (world.spawning || world.pid !== undefined))
  expect(state.phase === 'backoff').toBe(world.wanted && !world.spawning && world.pid === undefined)
}

test('in every order of events a process is known while it lives, and only one lives', () => {
  let orders = 0
  const explore = (state: ProcessState, world: World, depth: number): void => {
    orders += 1
    if (depth === 0) return
    for (const event of possibleEvents(world)) {
      const after = next(state, event)
      const worldAfter = nextWorld(world, event, state, after)
      check(after, worldAfter)
      explore(after, worldAfter, depth - 1)
    }
  }
  explore(idle, stillWorld, 6)
  expect(orders).toBeGreaterThan(20_000)
})

const counts = { restarts: 2, failuresInRow: 1 }
const states: Readonly<Record<string, ProcessState>> = {
  idle,
  starting: { phase: 'starting', ...counts },
  running: { phase: 'running', pid: 7, ...counts },
  ready: { phase: 'ready', pid: 7, ...counts },
  unresponsive: { phase: 'unresponsive', pid: 7, ...counts },
  backoff: { phase: 'backoff', ...counts },
  stopping: { phase: 'stopping', pid: 7, ...counts },
  stopped: { phase: 'stopped', ...counts },
}

describe('what cannot happen is a bug', () => {
  test.each([
    ['spawned', ['idle', 'running', 'ready', 'unresponsive', 'backoff', 'stopping', 'stopped']],
    ['notSpawned', ['idle', 'running', 'ready', 'unresponsive', 'backoff', 'stopped']],
    ['exited', ['idle', 'starting', 'backoff', 'stopped']],
    ['retry', ['idle', 'starting', 'running', 'ready', 'unresponsive', 'stopping', 'stopped']],
  ] as const)('%s in %s', (type, phases) => {
    const event = { type, pid: 8, healthy: false } as ProcessEvent
    for (const phase of phases) expect(() => next(states[phase]!, event)).toThrow(`bug: ${type} in ${phase}`)
  })
})

describe('what is asked at the wrong moment changes nothing', () => {
  test.each([
    ['start', ['starting', 'running', 'ready', 'unresponsive', 'backoff', 'stopping']],
    ['ready', ['idle', 'starting', 'ready', 'backoff', 'stopping', 'stopped']],
    ['notReady', ['idle', 'starting', 'running', 'backoff', 'stopping', 'stopped']],
    ['silent', ['idle', 'starting', 'unresponsive', 'backoff', 'stopping', 'stopped']],
    ['stop', ['idle', 'stopping', 'stopped']],
  ] as const)('%s in %s', (type, phases) => {
    for (const phase of phases) expect(next(states[phase]!, { type })).toBe(states[phase])
  })
})

describe('the counts', () => {
  test('a failure adds one to those in a row', () => {
    expect(next(states['ready']!, { type: 'exited', healthy: false })).toMatchObject({
      failuresInRow: 2,
      restarts: 2,
    })
  })

  test('a healthy time begins the row anew', () => {
    expect(next(states['ready']!, { type: 'exited', healthy: true })).toMatchObject({
      failuresInRow: 1,
      restarts: 2,
    })
  })

  test('a retry is a restart', () => {
    expect(next(states['backoff']!, { type: 'retry' })).toMatchObject({ failuresInRow: 1, restarts: 3 })
  })

  test('a new start forgets both', () => {
    expect(next(states['stopped']!, { type: 'start' })).toEqual({
      phase: 'starting',
      failuresInRow: 0,
      restarts: 0,
    })
  })

  test('a spawn that fails ends the first start and delays a restart', () => {
    const first = next(idle, { type: 'start' })
    expect(next(first, { type: 'notSpawned' }).phase).toBe('stopped')
    expect(next(states['starting']!, { type: 'notSpawned' })).toMatchObject({
      phase: 'backoff',
      failuresInRow: 2,
    })
  })
})
