import type { DrainOptions } from '../../client/drain.ts'
import { boolean, duration, integer } from '../../config/table/kinds.ts'
import { isSubdomain } from '../../config/table/kubernetes-names.ts'
import { usageError } from '../../config/table/setting.ts'
import { type Invocation, type Operand, type OptionValues, optionValues } from '../command.ts'
import { stopSignals } from '../stop-signals.ts'

export const nodeOperand: Operand = {
  placeholder: 'NAME',
  description: 'its name, as "k8s kubectl get nodes" shows it',
}

/** What a Node cannot be named is no part of a request's path. */
export function nodeNameOf({ operands: [name = ''] }: Invocation): string {
  if (isSubdomain(name)) return name
  throw usageError(
    `cannot use ${JSON.stringify(name).slice(0, 100)} as the name of a Node: allowed are lower-case letters, digits, - and .`,
  )
}

const group = 'Draining'

/** What draining has in common, under kubectl's names. */
export const drainOptions = {
  'delete-emptydir-data': {
    group,
    description: 'Evict pods that have an emptyDir, too, whose data are lost.',
    kind: boolean,
    default: false,
  },
  force: {
    group,
    description: 'Go on without a question, whatever is lost.',
    kind: boolean,
    default: false,
  },
  'disable-eviction': {
    group,
    description: 'Delete pods without regard to budgets of disruption.',
    kind: boolean,
    default: false,
  },
  'grace-period': {
    group,
    description: 'How many seconds a pod has to end by itself.',
    kind: integer({ from: 0, to: 1_000_000 }),
    defaultText: "each pod's own",
  },
  timeout: {
    group,
    description: 'How long to wait before it fails.',
    kind: duration,
    default: 300_000,
    defaultText: '5m',
  },
  'dry-run': {
    group,
    description: 'Only say what would be done.',
    kind: boolean,
    default: false,
  },
}

type Given = OptionValues<typeof drainOptions>

/** As the client takes them. A signal ends it in the middle, and a second one whatever it does. */
export function clientOptions({
  flags,
  environment,
  print,
}: Invocation): Omit<DrainOptions, 'ignoreDaemonsets'> {
  const { gracePeriod, timeout, ...rest }: Given = optionValues(drainOptions, flags)
  const { stop, hurry } = stopSignals(environment)
  hurry.addEventListener('abort', () => process.exit(1))
  return {
    ...{ ...rest, gracePeriodSeconds: gracePeriod, timeoutMs: timeout },
    signal: stop,
    print: (line) => print(`${line}\n`),
  }
}
