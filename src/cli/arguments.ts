import { parseArgs } from 'node:util'
import { describeSetting, showText, usageError } from '../config/table/setting.ts'
import { roles } from '../config/roles.ts'
import type { Flags } from '../config/table/sources.ts'
import { suggest } from '../config/table/suggest.ts'
import type { Command } from './command.ts'

/**
 * Node's own parser reads the command line: it takes a millisecond, where loading and running yargs
 * takes 50. yargs renders the help.
 */
export type Request =
  | {
      readonly kind: 'run'
      readonly command: Command
      readonly flags: Flags
      readonly operands: readonly string[]
    }
  /** `group` asks for the commands whose names begin with that word. */
  | { readonly kind: 'help'; readonly command: Command | undefined; readonly group?: string }
  | { readonly kind: 'version' }

export interface Commands {
  readonly all: readonly Command[]
  /** The one that runs when none is named. */
  readonly default: Command
  /** What the launcher executes by itself; arguments after these names are not ours. */
  readonly external: readonly string[]
  /** What the commands of a group are for, by its word: one sentence. */
  readonly groups: Readonly<Record<string, string>>
}

/** What every command understands. */
const generalFlags = ['help', 'version']

type Token = ReturnType<typeof tokenize>[number]
type OptionToken = Extract<Token, { kind: 'option' }>
type WordToken = Extract<Token, { kind: 'positional' }>

/** Throws an AppError with the code USAGE at the first argument that cannot be used. */
export function parseArguments(argv: readonly string[], commands: Commands): Request {
  const tokens = tokenize(argv, commands.all)
  const words = tokens.filter((token) => token.kind === 'positional')
  const topic = helpWords(
    words.map(({ value }) => value),
    commands,
  )
  if (topic !== undefined) return helpTopic(topic, commands)
  const { command, operands, group } = commandOf({ tokens, words, commands })
  const flags: { name: string; text: string }[] = []
  const wanted = new Set<string>()
  for (const token of tokens) {
    if (token.kind !== 'option') continue
    if (generalFlags.includes(token.name)) wanted.add(token.name)
    else if (command !== undefined) flags.push(flagOf({ token, command, commands }))
  }
  if (command === undefined) {
    if (wanted.has('help')) return { kind: 'help', command, group }
    throw incomplete(group, commands)
  }
  const isForHelp = wanted.size > 0
  checkOperands({ command, operands, isForHelp })
  if (wanted.has('help')) return { kind: 'help', command: words.length === 0 ? undefined : command }
  return isForHelp ? { kind: 'version' } : { kind: 'run', command, flags, operands }
}

function checkOperands(given: { command: Command; operands: readonly string[]; isForHelp: boolean }): void {
  const { command, operands, isForHelp } = given
  const expected = command.operands ?? []
  const extra = expected.at(-1)?.isRest === true ? undefined : operands[expected.length]
  if (extra !== undefined) {
    const takes = expected.length === 0 ? 'flags only' : `no more than ${placeholders(command)}`
    throw usageError(`cannot use ${showText(extra)}: k8s ${command.name} takes ${takes}`)
  }
  const missing = expected.slice(operands.length).find(({ isOptional }) => isOptional !== true)
  if (missing === undefined || isForHelp) return
  throw usageError(
    `cannot run ${command.name} without ${missing.placeholder}: ${missing.description}; the form is k8s ${command.name} ${placeholders(command)}`,
  )
}

/** What follows the name of a command on its command line: "FILE [NAME]". */
export function placeholders({ operands = [] }: Command): string {
  return operands
    .map(({ placeholder, isOptional, isRest }) => {
      const word = isRest === true ? `-- ${placeholder}...` : placeholder
      return isOptional === true ? `[${word}]` : word
    })
    .join(' ')
}

/** Which options take a value has to be known before the command is: options of one name agree on it. */
function tokenize(argv: readonly string[], commands: readonly Command[]) {
  const entries = commands.flatMap(({ options }) => Object.entries(options))
  const options = Object.fromEntries(
    entries.map(([name, { kind, short }]) => [
      name,
      { type: kind.bare === undefined ? ('string' as const) : ('boolean' as const), ...(short && { short }) },
    ]),
  )
  const { tokens } = parseArgs({
    args: [...argv],
    options: { ...options, help: { type: 'boolean', short: 'h' }, version: { type: 'boolean' } },
    strict: false,
    allowPositionals: true,
    tokens: true,
  })
  return tokens
}

/** A name is one word or two: `status`, `db status`. One word alone may be that of a group. */
type Named =
  | { readonly command: Command; readonly operands: readonly string[]; readonly group?: undefined }
  | { readonly command: undefined; readonly operands: readonly string[]; readonly group: string }

function commandOf(given: {
  tokens: readonly Token[]
  words: readonly WordToken[]
  commands: Commands
}): Named {
  const { tokens, words, commands } = given
  const [first] = words
  if (first === undefined) return { command: commands.default, operands: [] }
  // `k8s --wat x`: the flag is what is wrong, not the command x.
  for (const token of tokens.slice(0, tokens.indexOf(first))) {
    if (token.kind === 'option' && !isKnownAnywhere(token, commands)) {
      flagOf({ token, command: commands.default, commands })
    }
  }
  return named(
    words.map(({ value }) => value),
    commands,
  )
}

function named([first = '', second, ...others]: readonly string[], commands: Commands): Named {
  const members = groupMembers(first, commands)
  // Two words before one: a command may have the name of a group, with operands that are no command of it.
  const member = members.find(({ name }) => name === `${first} ${second}`)
  if (member !== undefined) return { command: member, operands: others }
  const single = commands.all.find(({ name }) => name === first)
  if (single !== undefined)
    return { command: single, operands: second === undefined ? [] : [second, ...others] }
  if (members.length === 0) throw unknownCommand(first, commands)
  if (second === undefined) return { command: undefined, operands: [], group: first }
  const near = suggest(
    second,
    members.map(({ name }) => name.slice(first.length + 1)),
  )
  const advice = near === undefined ? `k8s help ${first} lists them` : `did you mean ${first} ${near}?`
  throw usageError(`cannot run ${first} ${showText(second)}: there is no such command; ${advice}`)
}

/** The commands whose names begin with a word: `db status` is of the group `db`. */
export function groupMembers(group: string, { all }: Commands): Command[] {
  return all.filter(({ name }) => name.startsWith(`${group} `))
}

function incomplete(group: string, commands: Commands): Error {
  const names = groupMembers(group, commands).map(({ name }) => name)
  return usageError(
    `cannot run ${group} alone: there is ${names.join(', ')}; k8s help ${group} describes them`,
  )
}

function unknownCommand(given: string, commands: Commands): Error {
  if (commands.external.includes(given)) {
    return usageError(
      `cannot run ${given} from here: the built artifact (dist/artifacts/k8s) has it, or build/payload/bin/${given}`,
    )
  }
  const role = Object.values(roles).find(({ setting, isThere }) => setting === given && !isThere)
  if (role !== undefined) return usageError(`cannot run ${given}: the role ${given} is not there yet`)
  const firstWords = commands.all.map(({ name }) => name.split(' ', 1)[0] as string)
  const near = suggest(given, [...new Set(firstWords), ...commands.external])
  const advice = near === undefined ? 'k8s --help lists the commands' : `did you mean ${near}?`
  return usageError(`cannot run ${showText(given)}: there is no such command; ${advice}`)
}

/** What `k8s help db status` and `k8s db help status` ask for; undefined: no help is asked for by a word. */
function helpWords([first, second, ...others]: readonly string[], commands: Commands): string[] | undefined {
  if (first === 'help') return second === undefined ? [] : [second, ...others]
  const isGroup = first !== undefined && groupMembers(first, commands).length > 0
  return isGroup && second === 'help' ? [first, ...others] : undefined
}

function helpTopic(words: readonly string[], commands: Commands): Request {
  if (words.length === 0) return { kind: 'help', command: undefined }
  const { command, operands, group } = named(words, commands)
  if (command === undefined) return { kind: 'help', command, group }
  const [extra] = operands
  if (extra !== undefined)
    throw usageError(`cannot use ${showText(extra)}: there is help for k8s ${command.name}`)
  return { kind: 'help', command }
}

function isKnownAnywhere(token: OptionToken, { all }: Commands): boolean {
  return generalFlags.includes(token.name) || all.some(({ options }) => Object.hasOwn(options, token.name))
}

function flagOf(given: { token: OptionToken; command: Command; commands: Commands }): {
  name: string
  text: string
} {
  const { token, command, commands } = given
  const name = ownName(token, command)
  const option = Object.hasOwn(command.options, name) ? command.options[name] : undefined
  if (option === undefined) throw unknownFlag({ token, command, commands })
  // -o=json reaches us as "=json"; a text of its own that looks like a flag is a forgotten value.
  const text = token.rawName.startsWith('--') ? token.value : token.value?.replace(/^=/, '')
  if (text === undefined && option.kind.bare !== undefined) return { name, text: option.kind.bare }
  if (text === undefined || (text.startsWith('--') && !token.inlineValue)) {
    const shown = describeSetting({ name, origin: { kind: 'flag' } })
    throw usageError(`cannot use ${shown}: it has no value; allowed is ${option.kind.allowed}`)
  }
  return { name, text }
}

/** The parser knows a letter by one of the commands that have it. */
function ownName({ name, rawName }: OptionToken, { options }: Command): string {
  if (rawName.startsWith('--')) return name
  return Object.keys(options).find((own) => options[own]?.short === rawName.slice(1)) ?? name
}

/** An error names no more commands than this. */
const namedOwners = 3

function unknownFlag(given: { token: OptionToken; command: Command; commands: Commands }): Error {
  const { token, command, commands } = given
  const flag = showText(token.rawName.startsWith('--') ? `--${token.name}` : token.rawName)
  const owners = commands.all.filter(({ options }) => Object.hasOwn(options, token.name))
  if (owners.length > 0) {
    const names = owners.slice(0, namedOwners).map(({ name }) => `k8s ${name}`)
    if (owners.length > namedOwners) names.push(`${owners.length - namedOwners} more`)
    return usageError(`cannot use ${flag} with k8s ${command.name}: it belongs to ${names.join(', ')}`)
  }
  const near = suggest(token.name, [...Object.keys(command.options), ...generalFlags])
  const advice = near === undefined ? `k8s ${command.name} --help lists the flags` : `did you mean --${near}?`
  return usageError(`cannot use ${flag}: there is no such flag; ${advice}`)
}
