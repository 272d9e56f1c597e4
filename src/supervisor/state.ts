import { assert } from '../base/errors.ts'

/*
 * The states of a supervised process.
 *
 *            start             spawned            ready               silent
 *    idle ──────────▶ starting ───────▶ running ────────▶ ready ───────────────▶ unresponsive
 *                      ▲    │              │  ◀──────────  │  ◀─────────────────   │
 *                      │    │              │    notReady   │        ready          │
 *                retry │    │ notSpawned   │               │                       │
 *                      │    ▼ (a restart)  ▼ exited        ▼ exited                ▼ exited (it is killed)
 *                     backoff ◀────────────┴───────────────┴───────────────────────┘
 *
 *    silent    in running:                                      ▶ unresponsive
 *    notReady  in unresponsive:                                 ▶ running
 *    stop      in starting, running, ready and unresponsive:    ▶ stopping ──exited, notSpawned──▶ stopped
 *              in backoff:                                      ▶ stopped
 *    start     in stopped:                                      ▶ starting
 *    notSpawned of the first start:                             ▶ stopped   (its caller hears why)
 *
 * running: there is a process; it is on its way, or answers that it cannot do its work just now.
 * unresponsive: it does not answer at all; whoever watches it kills it when that lasts, and the exit
 * leads through the backoff.
 *
 * What a user asks at the wrong moment (start while it runs, ready while it stops) changes nothing.
 * What cannot happen (a process that exits before it was spawned) is a bug.
 */

/**
 * restarts: how often it was started again since start(); failuresInRow: exits since start() or
 * since the last one that was healthy, which is what the backoff grows with.
 */
interface Counts {
  readonly restarts: number
  readonly failuresInRow: number
}

export type ProcessState =
  | { readonly phase: 'idle' }
  | ({ readonly phase: 'starting' } & Counts)
  | ({ readonly phase: 'running'; readonly pid: number } & Counts)
  | ({ readonly phase: 'ready'; readonly pid: number } & Counts)
  | ({ readonly phase: 'unresponsive'; readonly pid: number } & Counts)
  | ({ readonly phase: 'backoff' } & Counts)
  | ({ readonly phase: 'stopping'; readonly pid?: number } & Counts)
  | ({ readonly phase: 'stopped' } & Counts)

export type ProcessPhase = ProcessState['phase']

export type ProcessEvent =
  /** The user wants it to run. */
  | { readonly type: 'start' }
  | { readonly type: 'spawned'; readonly pid: number }
  /** The spawn failed, or was given up because of a stop. */
  | { readonly type: 'notSpawned' }
  /** The user found that it does its work. */
  | { readonly type: 'ready' }
  /** The user found that it answers, and that it does not do its work. */
  | { readonly type: 'notReady' }
  /** The user found that it does not answer. */
  | { readonly type: 'silent' }
  /** healthy: it had run long enough for the next backoff to begin anew. */
  | { readonly type: 'exited'; readonly healthy: boolean }
  /** The delay of the backoff is over. */
  | { readonly type: 'retry' }
  /** The user wants it gone. */
  | { readonly type: 'stop' }

export const idle: ProcessState = { phase: 'idle' }

/** The state after the event; the very same object when the event changes nothing. */
export function next(state: ProcessState, event: ProcessEvent): ProcessState {
  switch (event.type) {
    case 'start':
      return state.phase === 'idle' || state.phase === 'stopped'
        ? { phase: 'starting', restarts: 0, failuresInRow: 0 }
        : state
    case 'spawned':
      return afterSpawned(state, event.pid)
    case 'notSpawned':
      return afterNotSpawned(state)
    case 'ready':
      return answering(state, 'ready')
    case 'notReady':
      return answering(state, 'running')
    case 'silent':
      return answering(state, 'unresponsive')
    case 'exited':
      return afterExited(state, event.healthy)
    case 'retry':
      assert(state.phase === 'backoff', `retry in ${state.phase}`)
      return { ...state, phase: 'starting', restarts: state.restarts + 1 }
    case 'stop':
      return afterStop(state)
  }
}

type Answering = Extract<ProcessState, { phase: 'running' | 'ready' | 'unresponsive' }>

function isAnswering(state: ProcessState): state is Answering {
  return state.phase === 'running' || state.phase === 'ready' || state.phase === 'unresponsive'
}

/** What is found out about a process that runs; too late for any other. */
function answering(state: ProcessState, phase: Answering['phase']): ProcessState {
  return isAnswering(state) && state.phase !== phase ? { ...state, phase } : state
}

function afterSpawned(state: ProcessState, pid: number): ProcessState {
  assert(
    state.phase === 'starting' || (state.phase === 'stopping' && state.pid === undefined),
    `spawned in ${state.phase}`,
  )
  return state.phase === 'starting' ? { ...state, phase: 'running', pid } : { ...state, pid }
}

function afterNotSpawned(state: ProcessState): ProcessState {
  if (state.phase === 'stopping') return stopped(state)
  assert(state.phase === 'starting', `notSpawned in ${state.phase}`)
  return state.failuresInRow === 0 ? stopped(state) : failed(state, state.failuresInRow + 1)
}

function afterExited(state: ProcessState, healthy: boolean): ProcessState {
  if (state.phase === 'stopping') return stopped(state)
  assert(isAnswering(state), `exited in ${state.phase}`)
  return failed(state, healthy ? 1 : state.failuresInRow + 1)
}

function afterStop(state: ProcessState): ProcessState {
  switch (state.phase) {
    case 'starting':
    case 'running':
    case 'ready':
    case 'unresponsive':
      return { ...state, phase: 'stopping' }
    case 'backoff':
      return stopped(state)
    case 'idle':
    case 'stopping':
    case 'stopped':
      return state
  }
}

function failed({ restarts }: Counts, failuresInRow: number): ProcessState {
  return { phase: 'backoff', restarts, failuresInRow }
}

function stopped({ restarts, failuresInRow }: Counts): ProcessState {
  return { phase: 'stopped', restarts, failuresInRow }
}
