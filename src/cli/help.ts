import yargs from 'yargs'
import { isList } from '../config/table/setting.ts'
import { type Commands, groupMembers, placeholders } from './arguments.ts'
import type { Command } from './command.ts'

/** Lines of help are no wider, however wide the terminal is. */
const widthLimit = 110

/** What the launcher executes without this program. */
const externalDescriptions: Readonly<Record<string, string>> = {
  kubectl: 'Run kubectl with the admin kubeconfig of this server.',
  crictl: 'Run crictl against the containerd of this server.',
  ctr: 'Run ctr against the containerd of this server.',
}

export function renderCommands(commands: Commands): Promise<string> {
  const help = page().usage('k8s: Kubernetes in one file.\n\nUsage: k8s [COMMAND] [FLAGS]')
  for (const { name, description } of commands.all) help.command(name, description)
  for (const name of commands.external) help.command(`${name} [ARGUMENTS]`, externalDescriptions[name] ?? '')
  for (const { command, description } of commands.default.examples) help.example(`${command}`, description)
  help.epilogue(
    'Without a command, k8s runs the role that its settings name: a server, unless they say otherwise.\nk8s COMMAND --help has the flags and examples of a command.',
  )
  return help.getHelp()
}

export function renderGroup(group: string, commands: Commands): Promise<string> {
  const help = page().usage(`${commands.groups[group] ?? ''}\n\nUsage: k8s ${group} COMMAND [FLAGS]`)
  for (const { name, description } of groupMembers(group, commands)) help.command(name, description)
  help.epilogue(`k8s help ${group} COMMAND has the flags and examples of a command.`)
  return help.getHelp()
}

export function renderCommand(command: Command, commands: Commands): Promise<string> {
  const name = command === commands.default ? `[${command.name}]` : command.name
  const usage = ['k8s', name, placeholders(command), '[FLAGS]'].filter((word) => word !== '').join(' ')
  const operands = command.operands?.map(({ placeholder, description }) => `${placeholder}: ${description}.`)
  const help = page().usage(
    [command.description, command.details, `Usage: ${usage}`, operands?.join('\n')]
      .filter((part) => part !== undefined)
      .join('\n\n'),
  )
  for (const [name, option] of Object.entries(command.options)) {
    const { description, group, kind, short, defaultText } = option
    const isSwitch = kind.bare !== undefined
    const repeated = isList(option) ? '; may be repeated' : ''
    help.option(name, {
      ...(isSwitch && { type: 'boolean' }),
      group: `${group}:`,
      description: isSwitch ? description : `${description} Allowed: ${kind.allowed}${repeated}.`,
      ...(short !== undefined && { alias: short }),
      ...defaultOf(option.default, defaultText),
    })
  }
  for (const example of command.examples) help.example(example.command, example.description)
  return help.getHelp()
}

function page() {
  return yargs([])
    .scriptName('k8s')
    .detectLocale(false)
    .version('version', 'Print the version.', '')
    .help('help', 'Print this help.')
    .alias('help', 'h')
    .group(['help', 'version'], 'General:')
    .wrap(Math.min(process.stdout.columns || widthLimit, widthLimit))
}

function defaultOf(
  value: unknown,
  text: string | undefined,
): { default?: unknown; defaultDescription?: string } {
  if (text !== undefined) return { default: '', defaultDescription: text }
  return value === undefined || Array.isArray(value)
    ? {}
    : { default: value, defaultDescription: String(value) }
}
