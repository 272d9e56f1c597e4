import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../../base/errors.ts'
import { prepareCredentials } from '../credentials.ts'
import type { Task } from './task.ts'

/** Certificates are renewed months before their end: a day more or less is nothing. */
const renewalIntervalMs = 24 * 3_600_000

/** Looks once a day which certificates are to be renewed; the start of the daemon has just done so. */
export const certificates: Task = {
  name: 'certificates',
  purpose: 'renew certificates',
  leaderOnly: false,
  async run({ config, addresses, paths, log }, signal) {
    for (;;) {
      await sleep(renewalIntervalMs, undefined, { signal, ref: false })
      await prepareCredentials({ config, addresses, paths, log }).catch((error: unknown) =>
        log.error({ reason: describeError(error) }, 'cannot renew certificates; the next try is in a day'),
      )
    }
  },
}
