import { describe, expect, test } from 'vitest'
import { startComponents, stopComponents } from '../../../src/cluster/order.ts'
import type { Component, ComponentName } from '../../../src/components/component.ts'

/** A component that notes what is asked of it, and is ready when the test says so. */
function recorded({
  name,
  needs,
  events,
}: {
  name: ComponentName
  needs: ComponentName[]
  events: string[]
}) {
  const isReady = Promise.withResolvers<void>()
  const component: Component = {
    name,
    needs,
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
    const datastore = recorded({ name: 'datastore', needs: [], events })
    const containerd = recorded({ name: 'containerd', needs: [], events })
    const apiserver = recorded({ name: 'kube-apiserver', needs: ['datastore'], events })
    const kubelet = recorded({ name: 'kubelet', needs: ['kube-apiserver', 'containerd'], events })
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
    const datastore = recorded({ name: 'datastore', needs: [], events })
    const containerd = recorded({ name: 'containerd', needs: [], events })
    const apiserver = recorded({ name: 'kube-apiserver', needs: ['datastore'], events })
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
    const apiserver = recorded({ name: 'kube-apiserver', needs: ['datastore'], events: [] })
    const started = startComponents({
      components: [apiserver.component],
      signal: new AbortController().signal,
      onReady: () => {},
    })
    await expect(started).rejects.toThrow('needs datastore, which does not stand before it')
  })
})

describe('the stop', () => {
  test('is strictly in reverse, with what follows a component right after it', async () => {
    const events: string[] = []
    const names: ComponentName[] = ['datastore', 'kube-apiserver', 'kubelet', 'kube-proxy']
    const components = names.map((name) => recorded({ name, needs: [], events }).component)
    await stopComponents({
      components,
      hurry: new AbortController().signal,
      onStop: () => {},
      after: { kubelet: async () => void events.push('end pods') },
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
    const datastore = recorded({ name: 'datastore', needs: [], events }).component
    const broken: Component = {
      ...recorded({ name: 'kubelet', needs: [], events }).component,
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
