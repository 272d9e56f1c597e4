import { AppError } from '../base/errors.ts'
import { file } from '../config/table/kinds.ts'
import { camelCase, type ListOption, type OptionTable, type SingleOption } from '../config/table/option.ts'
import { parseSetting } from '../config/table/setting.ts'
import { type Environment, type Flags, settingsOfFlags } from '../config/table/sources.ts'

/**
 * One command of `k8s`. Its file imports nothing but this room, base and the configuration: what the handler
 * needs beyond that, it imports when it runs.
 */
export interface Command {
  /** One word, or two: that of a group and its own (`db status`). */
  readonly name: string
  /** One sentence; it stands in the list of commands. */
  readonly description: string
  /** What else its user has to know. */
  readonly details?: string
  readonly examples: readonly Example[]
  readonly options: OptionTable
  /** What it takes beside flags, in this order; those that may be left away come last. */
  readonly operands?: readonly Operand[]
  /** Returns the exit code. */
  readonly handler: (invocation: Invocation) => Promise<number>
}

export interface Example {
  readonly command: string
  readonly description: string
}

export interface Operand {
  /** FILE */
  readonly placeholder: string
  readonly description: string
  readonly isOptional?: boolean
  /** It stands for all that follow; the last one. */
  readonly isRest?: boolean
}

/** What a command was called with. Each flag is one of the command's options and has a text. */
export interface Invocation {
  readonly flags: Flags
  /** One for each of the command's operands, but for those that were left away. */
  readonly operands: readonly string[]
  readonly environment: Environment
  /** Writes to the standard output. */
  readonly print: (text: string) => void
  /** Writes to the standard error. */
  readonly complain: (text: string) => void
}

/** The options by which a command finds its configuration. */
export const configOption = {
  config: {
    group: 'Configuration',
    description: 'The configuration file, in YAML; its keys are the names of the flags.',
    kind: file,
    defaultText: '/etc/k8s/config.yaml where it exists',
  },
} satisfies OptionTable

type ValueOf<Entry> =
  Entry extends ListOption<infer Item>
    ? readonly Item[]
    : Entry extends { readonly default: unknown; readonly kind: SingleOption<infer Value>['kind'] }
      ? Value
      : Entry extends SingleOption<infer Value>
        ? Value | undefined
        : never

type Camel<Name> = Name extends `${infer Head}-${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : Name

export type OptionValues<Table extends OptionTable> = {
  readonly [Name in keyof Table as Camel<Name & string>]: ValueOf<Table[Name]>
}

/** The values of a command's own options, which come from flags alone. */
export function optionValues<const Table extends OptionTable>(
  table: Table,
  flags: Flags,
): OptionValues<Table> {
  const settings = new Map(settingsOfFlags(flags).map((setting) => [setting.name, setting]))
  const values = Object.entries(table).map(([name, option]) => {
    const setting = settings.get(name)
    return [camelCase(name), setting === undefined ? option.default : parseSetting(option, setting)]
  })
  return Object.fromEntries(values) as OptionValues<Table>
}

/** The flags that are settings, for a command that has options of its own beside them. */
export function withoutOwn(flags: Flags, own: OptionTable): Flags {
  return flags.filter(({ name }) => !Object.hasOwn(own, name))
}

/** The launcher unpacks the artifact on this exit code, and starts the command again. */
export const payloadNeededExitCode = 100

/**
 * Call it when all input is checked and before anything is touched: a command that runs from the
 * launcher's memory, and needs the files in the artifact, ends here.
 */
export function requirePayload(environment: Environment): void {
  if (!isBeforeUnpacking(environment)) return
  throw new AppError('cannot run before the artifact is unpacked', { code: 'PAYLOAD_NEEDED' })
}

/** The launcher runs this program from memory. */
export function isBeforeUnpacking(environment: Environment): boolean {
  return environment['K8S_LAUNCHER'] === 'unpacked-not'
}

/** doing: what it is that needs root, as the end of "cannot ...". */
export function requireRoot(doing: string, remedy = 'use sudo'): void {
  const uid = process.geteuid?.()
  if (uid === 0) return
  throw new AppError(`cannot ${doing} as user ${uid}: mounts, networks and cgroups need root`, {
    code: 'NOT_ROOT',
    remedy,
  })
}

/** What a configuration is loaded from, and where its warnings go. */
export function sourcesOf({ flags, environment, complain }: Invocation) {
  return { flags, environment, warn: (line: string) => complain(`k8s: warning: ${line}\n`) }
}
