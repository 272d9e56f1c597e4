import { everyRole } from '../roles.ts'
import { choice, integer } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Logging'

export interface LoggingSettings {
  /** klog's verbosity, 0 to 10. */
  readonly v: number
  readonly logFormat: 'auto' | 'json' | 'text'
}

export const loggingSettings: Rows<LoggingSettings> = {
  v: {
    group,
    description: "The verbosity of the components' logs.",
    kind: integer({ from: 0, to: 10 }),
    default: 0,
    roles: everyRole,
  },
  'log-format': {
    group,
    description: 'The form of log lines; auto is text on a terminal, else json.',
    kind: choice('auto', 'json', 'text'),
    default: 'auto',
    roles: everyRole,
  },
}
