import { servers } from '../roles.ts'
import { directory, file, integer, schedule } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Snapshots'

export interface SnapshotsSettings {
  /** Times as in crontab(5), or 'none'. */
  readonly snapshotScheduleCron: string
  /** How many snapshots of a name are kept. */
  readonly snapshotRetention: number
  /** Absolute. */
  readonly snapshotDir: string
  /** Absolute; what is in it seals the snapshots. */
  readonly snapshotSecretFile?: string
}

export const snapshotsSettings: Rows<SnapshotsSettings> = {
  'snapshot-schedule-cron': {
    group,
    description: "When the daemon takes snapshots, in the machine's time.",
    kind: schedule,
    default: '0 */12 * * *',
    roles: servers,
  },
  'snapshot-retention': {
    group,
    description: 'How many snapshots of a name are kept.',
    kind: integer({ from: 1, to: 100_000 }),
    default: 5,
    roles: [...servers, 'datastore'],
  },
  'snapshot-dir': {
    group,
    description: 'The directory of the snapshots.',
    kind: directory,
    defaultText: 'snapshots in the data directory',
    roles: [...servers, 'datastore'],
  },
  'snapshot-secret-file': {
    group,
    description:
      'Seal snapshots with the secret in this file; without one their keys can be read by whoever has them.',
    kind: file,
    defaultText: 'none',
    roles: [...servers, 'datastore'],
  },
}
