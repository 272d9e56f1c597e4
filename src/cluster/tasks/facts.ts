import { keepFacts } from '../../config/facts.ts'
import { thisHost } from '../../config/host.ts'
import type { Task, TaskContext } from './task.ts'

/** From the first time on that the API server is there, the cluster is what it was created as. */
export const facts: Task<TaskContext> = {
  name: 'facts',
  purpose: 'keep what is fixed since the cluster was created',
  leaderOnly: false,
  async run({ config, whenReady }) {
    await whenReady('api')
    keepFacts(config, thisHost.nodeName())
  },
}
