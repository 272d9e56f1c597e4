import { parseArgs } from 'node:util'
import { describeSetting, showText, usageError } from '../config/setting.ts'
import type { Flags } from '../config/sources.ts'
import { suggest } from '../config/suggest.ts'
import type { Command } from './command.ts'

/**
 * Node's own parser reads the command line: it takes a millisecond, where loading and running yargs
 * takes 50. yargs renders the help.
 */
export type Request =
  | { readonly kind: 'run'; readonly command: Command; readonly flags: Flags }
  | { readonly kind: 'help'; readonly command: Command | undefined }
  | { readonly kind: 'version' }

export interface Commands {
  readonly all: readonly Command[]
  /** The one that runs when none is named. */
  readonly default: Command
  /** What the launcher executes by itself; arguments after these names are not ours. */
  readonly external: readonly string[]
}

/** What every command understands. */
const generalFlags = ['help', 'version']

type Token = ReturnType<typeof tokenize>[number]
type OptionToken = Extract<Token, { kind: 'option' }>

/** Throws an AppError with the code USAGE at the first argument that cannot be used. */
export function parseArguments(argv: readonly string[], commands: Commands): Request {
  const tokens = tokenize(argv, commands.all)
  const named = tokens.find((token) => token.kind === 'positional')
  const command = commandOf({ tokens, named, commands })
  const words = tokens.filter((token) => token.kind === 'positional' && token !== named)
  if (named?.value === 'help') return { kind: 'help', command: helpTopic(words[0], commands) }
  const flags: { name: string; text: string }[] = []
  const wanted = new Set<string>()
  for (const token of tokens) {
    if (token.kind !== 'option') continue
    if (generalFlags.includes(token.name)) wanted.add(token.name)
    else flags.push(flagOf({ token, command, commands }))
  }
  const [word] = words
  if (word?.kind === 'positional') {
    throw usageError(`cannot use ${showText(word.value)}: k8s ${command.name} takes flags only`)
  }
  if (wanted.has('help')) return { kind: 'help', command: named === undefined ? undefined : command }
  return wanted.has('version') ? { kind: 'version' } : { kind: 'run', command, flags }
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

function commandOf(given: {
  tokens: readonly Token[]
  named: Token | undefined
  commands: Commands
}): Command {
  const { tokens, named, commands } = given
  if (named?.kind !== 'positional' || named.value === 'help') return commands.default
  // `k8s --wat x`: the flag is what is wrong, not the command x.
  for (const token of tokens.slice(0, tokens.indexOf(named))) {
    if (token.kind === 'option' && !isKnownAnywhere(token, commands)) {
      flagOf({ token, command: commands.default, commands })
    }
  }
  const command = commands.all.find(({ name }) => name === named.value)
  if (command !== undefined) return command
  throw unknownCommand(named.value, commands)
}

function unknownCommand(given: string, commands: Commands): Error {
  if (commands.external.includes(given)) {
    return usageError(
      `cannot run ${given} from here: the built artifact (dist/artifacts/k8s) has it, or build/payload/bin/${given}`,
    )
  }
  const near = suggest(given, [...commands.all.map(({ name }) => name), ...commands.external])
  const advice = near === undefined ? 'k8s --help lists the commands' : `did you mean ${near}?`
  return usageError(`cannot run ${showText(given)}: there is no such command; ${advice}`)
}

function helpTopic(word: Token | undefined, commands: Commands): Command | undefined {
  if (word?.kind !== 'positional') return undefined
  const command = commands.all.find(({ name }) => name === word.value)
  if (command === undefined) throw unknownCommand(word.value, commands)
  return command
}

function isKnownAnywhere(token: OptionToken, { all }: Commands): boolean {
  return generalFlags.includes(token.name) || all.some(({ options }) => Object.hasOwn(options, token.name))
}

function flagOf(given: { token: OptionToken; command: Command; commands: Commands }): {
  name: string
  text: string
} {
  const { token, command, commands } = given
  const option = Object.hasOwn(command.options, token.name) ? command.options[token.name] : undefined
  if (option === undefined) throw unknownFlag({ token, command, commands })
  const { name } = token
  // -o=json reaches us as "=json"; a text of its own that looks like a flag is a forgotten value.
  const text = token.rawName.startsWith('--') ? token.value : token.value?.replace(/^=/, '')
  if (text === undefined && option.kind.bare !== undefined) return { name, text: option.kind.bare }
  if (text === undefined || (text.startsWith('--') && !token.inlineValue)) {
    const shown = describeSetting({ name, origin: { kind: 'flag' } })
    throw usageError(`cannot use ${shown}: it has no value; allowed is ${option.kind.allowed}`)
  }
  return { name, text }
}

function unknownFlag(given: { token: OptionToken; command: Command; commands: Commands }): Error {
  const { token, command, commands } = given
  const flag = showText(token.rawName.startsWith('--') ? `--${token.name}` : token.rawName)
  const owners = commands.all.filter(({ options }) => Object.hasOwn(options, token.name))
  if (owners.length > 0) {
    const names = owners.map(({ name }) => `k8s ${name}`).join(', ')
    return usageError(`cannot use ${flag} with k8s ${command.name}: it belongs to ${names}`)
  }
  const near = suggest(token.name, [...Object.keys(command.options), ...generalFlags])
  const advice = near === undefined ? `k8s ${command.name} --help lists the flags` : `did you mean --${near}?`
  return usageError(`cannot use ${flag}: there is no such flag; ${advice}`)
}
