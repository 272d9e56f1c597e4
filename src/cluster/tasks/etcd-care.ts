import { setTimeout as sleep } from 'node:timers/promises'
import { Trouble } from '../trouble.ts'
import type { Task, TaskContext } from './task.ts'

/** A look is two small questions. */
const lookIntervalMs = 10_000

/** Keeps this server's own member of etcd within its bounds; where others run the etcd, or there is none, there is nothing to do. */
export const etcdCare: Task<TaskContext> = {
  name: 'etcd-care',
  purpose: 'care for etcd',
  leaderOnly: false,
  async run({ storage: { care }, whenReady, isReady, log, board }, signal) {
    if (care === undefined) return
    await whenReady('storage')
    const trouble = new Trouble({ ...etcdCare, board, log })
    for (;;) {
      await sleep(lookIntervalMs, undefined, { signal, ref: false })
      // What keeps it from that has a row of its own.
      if (isReady('etcd')) await trouble.attempt(() => care.look(signal), signal)
    }
  },
}
