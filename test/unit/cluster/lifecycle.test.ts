import { describe, expect, test, vi } from 'vitest'
import { restartComponent, startComponents, stopComponents } from '../../../src/cluster/lifecycle.ts'
import type { Component, ComponentName } from '../../../src/components/component.ts'

/** What each needs and provides. */
const borders = {
  datastore: { needs: [], provides: ['storage'] },
  containerd: { needs: [], provides: ['cri'] },
  'kube-apiserver': { needs: ['storage'], provides: ['api'] },
  kubelet: { needs: ['api', 'cri'], provides: ['node'] },
  'kube-proxy': { needs: ['api', 'node'], provides: [] },
} as const satisfies Partial<Record<ComponentName, Pick<Component, 'needs' | 'provides'>>>

/** A component that notes what is asked of it, and is ready when the test says so. */
function recorded({
  name,
  events,
  policy = 'fatal',
  readyTimeoutMs = 60_000,
}: {
  name: keyof typeof borders
  events: string[]
  policy?: Component['policy']
  readyTimeoutMs?: number
}) {
  const isReady = Promise.withResolvers<void>()
  const component: Component = {
    name,
    ...borders[name],
    policy,
    readyTimeoutMs,
    stopTimeoutMs: 60_000,
    init: async () => {},
    start: async () => void events.push(`start ${name}`),
    ready(signal) {
      signal.addEventListener('abort', () => isReady.reject(signal.reason))
      return isReady.promise
    },
    stop: async () => void events.push(`stop ${name}`),
    status: () => ({ name, state: 'idle', restarts: 0, since: '' }),
  }
  return { component, isReady }
}

const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

describe('the start', () => {
  test('takes each component as soon as what it needs is ready, and waits for nothing else', async () => {
    const events: string[] = []
    const datastore = recorded({ name: 'datastore', events })
    const containerd = recorded({ name: 'containerd', events })
    const apiserver = recorded({ name: 'kube-apiserver', events })
    const kubelet = recorded({ name: 'kubelet', events })
    const all = [datastore, containerd, apiserver, kubelet]
    const started = startComponents({
      components: all.map(({ component }) => component),
      signal: new AbortController().signal,
      onReady: ({ name }) => events.push(`ready ${name}`),
      onDegraded: () => {},
    })
    await settled()
    expect(events).toEqual(['start datastore', 'start containerd'])
    datastore.isReady.resolve()
    await settled()
    expect(events.slice(2)).toEqual(['ready datastore', 'start kube-apiserver'])
    apiserver.isReady.resolve()
    await settled()
    expect(events.slice(4)).toEqual(['ready kube-apiserver'])
    containerd.isReady.resolve()
    await settled()
    expect(events.slice(5)).toEqual(['ready containerd', 'start kubelet'])
    kubelet.isReady.resolve()
    await started.serving
    await started.complete
  })

  test('waits for what a task provides, too', async () => {
    const events: string[] = []
    const { component, isReady } = recorded({ name: 'datastore', events })
    const archives = Promise.withResolvers<void>()
    const started = startComponents({
      components: [{ ...component, needs: ['archives'] }],
      ofTasks: new Map([['archives', archives.promise]]),
      signal: new AbortController().signal,
      onReady: ({ name }) => events.push(`ready ${name}`),
      onDegraded: () => {},
    })
    await settled()
    expect(events).toEqual([])
    archives.resolve()
    await settled()
    expect(events).toEqual(['start datastore'])
    isReady.resolve()
    await started.complete
  })

  test('gives the others up when one fails, and tells its error', async () => {
    const events: string[] = []
    const datastore = recorded({ name: 'datastore', events })
    const containerd = recorded({ name: 'containerd', events })
    const apiserver = recorded({ name: 'kube-apiserver', events })
    const started = startComponents({
      components: [datastore, containerd, apiserver].map(({ component }) => component),
      signal: new AbortController().signal,
      onReady: () => {},
      onDegraded: () => {},
    })
    await settled()
    datastore.isReady.reject(new Error('cannot open datastore'))
    await expect(started.serving).rejects.toThrow('cannot open datastore')
    expect(events).not.toContain('start kube-apiserver')
  })

  test('goes on without what is not fatal, which is tried again', async () => {
    const events: string[] = []
    const containerd = recorded({ name: 'containerd', events, policy: 'degraded' })
    const datastore = recorded({ name: 'datastore', events })
    const apiserver = recorded({ name: 'kube-apiserver', events })
    const kubelet = recorded({ name: 'kubelet', events, policy: 'degraded' })
    const broken = Promise.withResolvers<void>()
    let tries = 0
    const start = containerd.component.start.bind(containerd.component)
    const flaky: Component = {
      ...containerd.component,
      start: (signal) => (++tries === 1 ? broken.promise : start(signal)),
    }
    const started = startComponents({
      components: [datastore.component, flaky, apiserver.component, kubelet.component],
      signal: new AbortController().signal,
      onReady: ({ name }) => events.push(`ready ${name}`),
      onDegraded: ({ name }, reason) => events.push(`degraded ${name}: ${reason}`),
      retryMs: 1,
    })
    datastore.isReady.resolve()
    apiserver.isReady.resolve()
    await started.serving
    expect(events).not.toContain('start kubelet')
    broken.reject(new Error('no such file'))
    await vi.waitUntil(() => events.includes('start kubelet'), { timeout: 30_000 })
    expect(events).toContain('degraded containerd: no such file')
    kubelet.isReady.resolve()
    await vi.waitUntil(() => events.includes('start containerd'), { timeout: 30_000 })
    containerd.isReady.resolve()
    await started.complete
    expect(events.at(-1)).toBe('ready containerd')
  })

  test('gives what is not ready in time its time again while it gets on, and names the limit when it does not', async () => {
    const events: string[] = []
    const slow = recorded({ name: 'datastore', events })
    // Each look finds as much as the limit more, until the test stops it.
    const looks = { made: 0, isBusy: true, usedMs: 0 }
    const started = startComponents({
      components: [{ ...slow.component, readyTimeoutMs: 1 }],
      signal: new AbortController().signal,
      onReady: () => events.push('ready'),
      onDegraded: () => {},
      processorTimeMs() {
        looks.made += 1
        return (looks.usedMs += looks.isBusy ? 1 : 0)
      },
    })
    const refused = started.serving.catch((error: unknown) => error)
    await vi.waitUntil(() => looks.made > 3, { timeout: 30_000 })
    expect(events).toEqual(['start datastore'])
    looks.isBusy = false
    expect(await refused).toMatchObject({
      message: 'cannot wait longer for datastore: it was not ready within 0.001 s',
    })
  })

  test('waits for any time for what has no limit', async () => {
    const events: string[] = []
    const storage = recorded({ name: 'datastore', events, readyTimeoutMs: Number.POSITIVE_INFINITY })
    const clock = recorded({ name: 'containerd', events, policy: 'degraded', readyTimeoutMs: 1 })
    const started = startComponents({
      components: [storage.component, clock.component],
      signal: new AbortController().signal,
      onReady: ({ name }) => events.push(`ready ${name}`),
      onDegraded: () => events.push('a limit has passed'),
      retryMs: 1,
    })
    clock.isReady.reject(new Error('not ready'))
    await vi.waitUntil(() => events.length > 10, { timeout: 30_000 })
    storage.isReady.resolve()
    await started.serving
    expect(events).toContain('ready datastore')
  })

  test('tells what cannot be prepared in time, which is waited for and not begun again', async () => {
    const events: string[] = []
    const kubelet = recorded({ name: 'datastore', events, policy: 'degraded' })
    const disk = Promise.withResolvers<void>()
    let preparations = 0
    const hanging: Component = {
      ...kubelet.component,
      readyTimeoutMs: 1,
      init() {
        preparations += 1
        return disk.promise
      },
    }
    const started = startComponents({
      components: [hanging],
      signal: new AbortController().signal,
      onReady: () => events.push('ready'),
      onDegraded: (_, reason) => events.push(reason),
      retryMs: 1,
    })
    await started.serving
    await vi.waitUntil(() => events.length > 2, { timeout: 30_000 })
    expect(events[0]).toBe('cannot prepare datastore: its files were not written within 0.001 s')
    expect(preparations).toBe(1)
    disk.resolve()
    kubelet.isReady.resolve()
    await started.complete
    expect(events.slice(-2)).toEqual(['start datastore', 'ready'])
  })

  test('ends with its signal and with the first failure, whatever hangs', async () => {
    const events: string[] = []
    const hanging: Component = {
      ...recorded({ name: 'datastore', events }).component,
      start: () => new Promise(() => {}),
    }
    const begin = (signal: AbortSignal, more: readonly Component[] = []) =>
      startComponents({
        components: [hanging, ...more],
        signal,
        onReady: () => {},
        onDegraded: () => {},
      }).serving
    const stop = new AbortController()
    const stopped = begin(stop.signal)
    stop.abort(new Error('the end'))
    await expect(stopped).rejects.toThrow('the end')
    const failing = recorded({ name: 'containerd', events })
    failing.isReady.reject(new Error('no memory'))
    await expect(begin(new AbortController().signal, [failing.component])).rejects.toThrow('no memory')
  })

  test('refuses a plan whose order contradicts its needs', async () => {
    const apiserver = recorded({ name: 'kube-apiserver', events: [] })
    const start = () =>
      startComponents({
        components: [apiserver.component],
        signal: new AbortController().signal,
        onReady: () => {},
        onDegraded: () => {},
      })
    expect(start).toThrow('needs storage, which nothing before it provides')
  })
})

describe('a restart', () => {
  /** A component that runs, and whose next starts fail. */
  function running(failures: number) {
    const events: string[] = []
    const { component, isReady } = recorded({ name: 'kubelet', events })
    isReady.resolve()
    let state: ReturnType<Component['status']>['state'] = 'ready'
    const restartable: Component = {
      ...component,
      async start() {
        if (failures-- > 0) throw new Error('no memory')
        events.push('start')
        state = 'running'
      },
      async stop() {
        events.push('stop')
        state = 'stopped'
      },
      status: () => ({ ...component.status(), state }),
    }
    const never = new AbortController().signal
    const options = { signal: never, retryMs: 1, onFailure: (reason: string) => void events.push(reason) }
    return { restartable, events, options, enter: (phase: typeof state) => (state = phase) }
  }

  test('is tried until it is done: nobody else would start what was ended', async () => {
    const { restartable, events, options } = running(2)
    await restartComponent(restartable, options)
    expect(events).toEqual(['stop', 'no memory', 'no memory', 'start'])
  })

  test('leaves what was not started yet to its start, which would find it running', async () => {
    const { restartable, events, options, enter } = running(0)
    for (const phase of ['idle', 'stopped'] as const) {
      enter(phase)
      await restartComponent(restartable, options)
    }
    expect(events).toEqual([])
  })

  test('ends with its signal', async () => {
    const { restartable, options } = running(1)
    const stop = new AbortController()
    const onFailure = () => stop.abort(new Error('the end'))
    const restarted = restartComponent(restartable, { ...options, signal: stop.signal, onFailure })
    await expect(restarted).rejects.toMatchObject({ cause: { message: 'the end' } })
  })
})

describe('the stop', () => {
  test('is strictly in reverse, with what follows a component right after it', async () => {
    const events: string[] = []
    const names: (keyof typeof borders)[] = ['datastore', 'kube-apiserver', 'kubelet', 'kube-proxy']
    const components = names.map((name) => recorded({ name, events }).component)
    await stopComponents({
      components,
      hurry: new AbortController().signal,
      onStop: () => {},
      afterLosing: { node: async () => void events.push('end pods') },
    })
    expect(events).toEqual([
      'stop kube-proxy',
      'stop kubelet',
      'end pods',
      'stop kube-apiserver',
      'stop datastore',
    ])
  })

  test('leaves behind what cannot even be killed, with a word on it, and stops the rest', async () => {
    const events: string[] = []
    const datastore = recorded({ name: 'datastore', events }).component
    const hanging: Component = {
      ...recorded({ name: 'kubelet', events }).component,
      stop: () => new Promise(() => {}),
    }
    const hurry = new AbortController()
    const stopped = stopComponents({
      components: [datastore, hanging],
      hurry: hurry.signal,
      onStop: () => {},
      marginMs: 1,
    })
    hurry.abort()
    await expect(stopped).rejects.toMatchObject({
      code: 'STOP_ABANDONED',
      fields: { component: 'kubelet' },
    })
    expect(events).toEqual(['stop datastore'])
  })

  test('goes on when one component fails to stop', async () => {
    const events: string[] = []
    const datastore = recorded({ name: 'datastore', events }).component
    const broken: Component = {
      ...recorded({ name: 'kubelet', events }).component,
      stop: () => Promise.reject(new Error('cannot kill')),
    }
    const stopped = stopComponents({
      components: [datastore, broken],
      hurry: new AbortController().signal,
      onStop: () => {},
    })
    await expect(stopped).rejects.toThrow('cannot kill')
    expect(events).toEqual(['stop datastore'])
  })
})
