import { once } from 'node:events'
import { keepFacts, readNodeRecord, updateNodeRecord } from '../../config/facts.ts'
import { thisHost } from '../../config/host.ts'
import type { Task, TaskContext } from './task.ts'

/** From the first time on that the API server is there, the cluster is what it was created as; a server that joins has joined once its Node is there, too. */
export const facts: Task<TaskContext> = {
  name: 'facts',
  purpose: 'keep what is fixed since the cluster was created',
  leaderOnly: false,
  async run({ config, paths, storage, whenReady }, signal) {
    await whenReady('api')
    keepFacts(config, thisHost.nodeName())
    if (!readNodeRecord(paths).isJoining) return
    signal.throwIfAborted()
    const end = new AbortController()
    try {
      await Promise.race([
        Promise.all([storage.joined, whenReady('node')]),
        once(signal, 'abort', { signal: end.signal }),
      ])
    } finally {
      end.abort()
    }
    signal.throwIfAborted()
    updateNodeRecord(paths, { isJoining: undefined })
  },
}
