import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Component } from '../../../src/components/component.ts'
import type { Paths } from '../../../src/config/paths.ts'
import type { Payload } from '../../../src/payload/payload.ts'
import { probeHttp } from '../../../src/components/probe.ts'
import { defaultTiming, probeIntervalMs } from '../../../src/components/probe-loop.ts'
import { restartComponent } from '../../../src/cluster/lifecycle.ts'
import { processComponent, type ProcessRecipe } from '../../../src/components/process-component.ts'
import { freePort } from '../../free-port.ts'
import {
  environment,
  program,
  recordingLogger,
  shell,
  temporaryDirectory,
  until,
} from '../supervisor/support.ts'

const never = new AbortController().signal

let directory: ReturnType<typeof temporaryDirectory>
let logger: ReturnType<typeof recordingLogger>
let components: Component[]

beforeEach(() => {
  directory = temporaryDirectory()
  logger = recordingLogger()
  components = []
})

afterEach(async () => {
  for (const component of components) await component.stop(AbortSignal.abort())
  directory[Symbol.dispose]()
})

function make(
  command: { command: string; args: string[] },
  recipe: Pick<ProcessRecipe, 'probe'> & Partial<ProcessRecipe>,
): Component {
  const component = processComponent(
    {
      args: () => command.args,
      name: 'kubelet',
      env: environment,
      needs: [],
      provides: [],
      policy: 'fatal',
      logFormat: 'klog',
      readyTimeoutMs: 60_000,
      stopTimeoutMs: 60_000,
      backoff: { initialDelayMs: 1, maximumDelayMs: 1 },
      ...recipe,
    },
    {
      payload: { bin: () => command.command, binDir: directory.path } as unknown as Payload,
      paths: { processRecordsDir: join(directory.path, 'processes') } as Paths,
      log: logger.log,
    },
  )
  components.push(component)
  return component
}

async function untilPid(component: Component, formerPid?: number): Promise<number> {
  return until(() => {
    const { state, pid } = component.status()
    return (state === 'running' || state === 'ready') && pid !== formerPid && pid
  })
}

describe('a life of the process has one probe loop', () => {
  test('after many restarts no more than one probe is under way', async () => {
    let underWay = 0
    let isReady = true
    const component = make(shell('exec sleep 1000'), {
      timing: { calmIntervalMs: 1, shortestIntervalMs: 1 },
      async probe(signal) {
        if (isReady) return
        underWay += 1
        // It ends when its process has ended.
        await once(signal, 'abort')
        underWay -= 1
        signal.throwIfAborted()
      },
    })
    await component.start(never)
    await component.ready(never)
    isReady = false
    let pid = await untilPid(component)
    for (let restart = 1; restart <= 8; restart++) {
      process.kill(pid, 'SIGKILL')
      pid = await untilPid(component, pid)
      await until(() => underWay > 0)
      expect(underWay).toBe(1)
    }
    await component.stop(AbortSignal.abort())
    expect(underWay).toBe(0)
  })

  test('whose interval grows with the time that it takes', () => {
    const intervals = [0, 2_500, 10_000, 60_000, 100_000, 3_600_000].map((notReadyMs) =>
      probeIntervalMs(defaultTiming, notReadyMs),
    )
    expect(intervals).toEqual([50, 50, 200, 1_200, 2_000, 2_000])
    expect(probeIntervalMs(defaultTiming, undefined)).toBe(10_000)
  })
})

/** A component that answers over HTTP, as its file `status` says. */
async function healthComponent({
  lives,
  ...options
}: Partial<ProcessRecipe> & { lives?: (error: Error) => boolean } = {}) {
  const port = await freePort()
  const requests = join(directory.path, 'requests')
  const status = join(directory.path, 'status')
  writeFileSync(requests, '')
  writeFileSync(status, '200')
  const ask = (path: string) => async (signal: AbortSignal) =>
    void (await probeHttp({ url: `http://127.0.0.1:${port}${path}`, signal }))
  const component = make(program('serve-health.ts', String(port), requests, status), {
    probe: ask('/readyz'),
    timing: { calmIntervalMs: 5, timeoutMs: 1_000, failuresBeforeUnresponsive: 2 },
    ...(lives && {
      alive: async (signal) => {
        await ask('/livez')(signal).catch((error: Error) => {
          if (!lives(error)) throw error
        })
      },
    }),
    ...options,
  })
  return { component, status, asked: () => readFileSync(requests, 'utf8').split('\n').length - 1 }
}

describe('a component that is ready', () => {
  test('is asked again', async () => {
    const { component, asked } = await healthComponent()
    await component.start(never)
    await component.ready(never)
    const before = asked()
    expect(await until(() => asked() > before + 3)).toBe(true)
  })

  test('is marked when it hangs (SIGSTOP), killed at its limit and started again', async () => {
    const { component } = await healthComponent({ hangLimitMs: 2_500 })
    await component.start(never)
    await component.ready(never)
    const { pid } = component.status()
    process.kill(pid!, 'SIGSTOP')
    const marked = await until(() => {
      const status = component.status()
      return status.state === 'unresponsive' && status
    })
    expect(marked).toMatchObject({ pid, reason: 'no answer within 1000 ms' })
    await until(() => component.status().state === 'ready' && component.status().pid !== pid)
    const { lastFailure, restarts, reason } = component.status()
    expect({ restarts, reason }).toEqual({ restarts: 1, reason: undefined })
    expect(lastFailure).toMatchObject({ signal: 'SIGKILL' })
    expect(lastFailure?.message).toMatch(
      /^kubelet was ended by SIGKILL after .*; it has not answered for \d+ s: no answer within 1000 ms$/,
    )
    expect(logger.records().map(({ msg }) => msg)).toContain('does not answer; killing it')
  })

  test('goes on when it answers again before its limit', async () => {
    const { component } = await healthComponent({ hangLimitMs: 600_000 })
    await component.start(never)
    await component.ready(never)
    const { pid } = component.status()
    process.kill(pid!, 'SIGSTOP')
    await until(() => component.status().state === 'unresponsive')
    process.kill(pid!, 'SIGCONT')
    await until(() => component.status().state === 'ready')
    expect(component.status()).toMatchObject({ pid, restarts: 0 })
    expect(component.status()).not.toHaveProperty('reason')
  })

  test('that is not ready any more and answers is shown with its reason, and lives', async () => {
    const { component, status } = await healthComponent({
      hangLimitMs: 1,
      lives: ({ message }) => message.includes('503'),
    })
    await component.start(never)
    await component.ready(never)
    const { pid } = component.status()
    writeFileSync(status, '503')
    const marked = await until(() => component.status().state === 'running' && component.status())
    expect(marked.reason).toMatch(/ answers 503: $/)
    writeFileSync(status, '200')
    await until(() => component.status().state === 'ready')
    expect(component.status()).toMatchObject({ pid, restarts: 0 })
  })
})

test('a process that never answers is killed at a limit of its own', async () => {
  const component = make(shell('exec sleep 1000'), {
    probe: () => Promise.reject(new Error('nobody listens')),
    timing: { shortestIntervalMs: 1, firstAnswerLimitMs: 1, failuresBeforeUnresponsive: 2 },
  })
  await component.start(never)
  await until(() => component.status().restarts > 0)
  expect(component.status().lastFailure?.message).toMatch(/; it has not answered for 0 s: nobody listens$/)
})

test('one that was stopped before its first answer is not taken for slow', async () => {
  const component = make(shell('exec sleep 1000'), {
    probe: () => Promise.reject(new Error('nobody listens')),
    timing: { shortestIntervalMs: 1, firstAnswerLimitMs: 600_000, failuresBeforeUnresponsive: 2 },
    hangLimitMs: 1,
  })
  await component.start(never)
  const pid = await untilPid(component)
  process.kill(pid, 'SIGSTOP')
  await until(() => component.status().restarts > 0)
  expect(component.status().lastFailure).toMatchObject({ signal: 'SIGKILL' })
})

test('a process in whose place a stranger keeps silent at its port is told so, and lives', async () => {
  const stranger = createServer().listen(0, '127.0.0.1')
  await once(stranger, 'listening')
  const { port } = stranger.address() as AddressInfo
  const component = make(shell('exec sleep 1000'), {
    probe: async (signal) => void (await probeHttp({ url: `http://127.0.0.1:${port}/`, signal })),
    ports: [port],
    timing: {
      ...{ shortestIntervalMs: 1, firstTimeoutMs: 1, firstAnswerLimitMs: 1, portsIntervalMs: 1 },
      failuresBeforeUnresponsive: 2,
    },
  })
  await component.start(never)
  const { pid, reason } = await until(() => {
    const status = component.status()
    return status.reason?.startsWith('port ') && status
  })
  expect(reason).toMatch(
    new RegExp(`^port ${port} is held by process ${process.pid} .*; no answer within 1 ms$`),
  )
  expect(component.status()).toMatchObject({ state: 'running', pid, restarts: 0 })
  stranger.close()
  await until(() => component.status().restarts > 0)
  expect(component.status().lastFailure?.message).toContain('it has not answered for')
})

test('a restart starts the process with the arguments of now', async () => {
  let seconds = 1000
  const component = make(
    { command: '/bin/sleep', args: [] },
    { args: () => [String(seconds)], probe: () => Promise.resolve() },
  )
  await component.start(never)
  const formerPid = await untilPid(component)
  seconds = 2000
  await restartComponent(component, { signal: never, onFailure: (reason) => expect.fail(reason) })
  const { pid, state, restarts } = component.status()
  expect([state, restarts]).toEqual(['ready', 0])
  expect(pid).not.toBe(formerPid)
  expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toBe('/bin/sleep\x002000\x00')
})

describe('the wait for readiness', () => {
  test('ends with the reason when the process fails too often', async () => {
    const component = make(shell('echo "Error: no such disk" >&2; exit 1'), {
      probe: () => Promise.reject(new Error('nobody listens')),
    })
    await component.start(never)
    await expect(component.ready(never)).rejects.toMatchObject({
      code: 'COMPONENT_NOT_READY',
      message: expect.stringMatching(/^cannot start kubelet: .*; Error: no such disk$/),
    })
  })

  test('ends with what the probe says when its signal fires', async () => {
    const component = make(shell('exec sleep 1000'), {
      probe: () => Promise.reject(new Error('the Node is not Ready')),
      timing: { firstAnswerLimitMs: 600_000 },
    })
    await component.start(never)
    await until(() => component.status().reason)
    await expect(component.ready(AbortSignal.abort())).rejects.toThrow(
      'cannot start kubelet: the Node is not Ready',
    )
  })

  test.each<[string, Partial<ProcessRecipe>]>([
    ['may be degraded', { policy: 'degraded' }],
    ['waits for others without a limit', { readyTimeoutMs: Number.POSITIVE_INFINITY }],
  ])('of a component that %s goes on until its signal fires', async (_, recipe) => {
    const giveUp = new AbortController()
    const component = make(shell('exit 1'), {
      ...recipe,
      probe: () => Promise.reject(new Error('nobody listens')),
    })
    await component.start(never)
    const waiting = component.ready(giveUp.signal)
    waiting.catch(() => {})
    await until(() => component.status().restarts > 8)
    giveUp.abort()
    await expect(waiting).rejects.toThrow(/^cannot start kubelet: kubelet exited with code 1 /)
  })

  test('ends with a stop', async () => {
    const component = make(shell('exec sleep 1000'), { probe: () => new Promise(() => {}) })
    await component.start(never)
    const waiting = component.ready(never)
    waiting.catch(() => {})
    await component.stop(AbortSignal.abort())
    await expect(waiting).rejects.toMatchObject({ code: 'COMPONENT_NOT_READY' })
  })
})
