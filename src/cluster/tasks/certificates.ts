import { writeUserKubeconfig } from '../credentials.ts'
import { renewDaily } from '../renew-daily.ts'
import type { Task, TaskContext } from './task.ts'

/** Looks once a day which certificates are to be renewed; the start of the daemon has just done so. */
export const certificates: Task<TaskContext> = {
  name: 'certificates',
  purpose: 'renew certificates',
  leaderOnly: false,
  run(context, signal) {
    // The kubeconfig is tried again, too.
    return renewDaily({ ...certificates, ...context, beside: () => writeUserKubeconfig(context) }, signal)
  },
}
