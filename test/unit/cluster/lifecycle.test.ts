import { describe, expect, test } from 'vitest'
import { startComponents, stopComponents } from '../../../src/cluster/lifecycle.ts'
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
function recorded({ name, events }: { name: keyof typeof borders; events: string[] }) {
  const isReady = Promise.withResolvers<void>()
  const component: Component = {
    name,
    ...borders[name],
    policy: 'fatal',
    readyTimeoutMs: 60_000,
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
    await started
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
    })
    await settled()
    datastore.isReady.reject(new Error('cannot open datastore'))
    await expect(started).rejects.toThrow('cannot open datastore')
    expect(events).not.toContain('start kube-apiserver')
  })

  test('refuses a plan whose order contradicts its needs', async () => {
    const apiserver = recorded({ name: 'kube-apiserver', events: [] })
    const started = startComponents({
      components: [apiserver.component],
      signal: new AbortController().signal,
      onReady: () => {},
    })
    await expect(started).rejects.toThrow('needs storage, which nothing before it provides')
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
