import { choice } from '../config/table/kinds.ts'

/** -o of the commands that print something a program may want. */
export const outputOption = {
  group: 'Output',
  description: 'The form of the answer.',
  kind: choice('table', 'json'),
  default: 'table' as const,
  short: 'o',
}
