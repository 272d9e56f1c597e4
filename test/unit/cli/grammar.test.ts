import { describe, expect, test } from 'vitest'
import { type Commands, parseArguments } from '../../../src/cli/arguments.ts'
import type { Command, Operand } from '../../../src/cli/command.ts'
import { renderCommand, renderCommands, renderGroup } from '../../../src/cli/help.ts'
import { commands as real } from '../../../src/cli/main.ts'
import { boolean, duration } from '../../../src/config/table/kinds.ts'

function command(name: string, operands: readonly Operand[] = [], options: Command['options'] = {}): Command {
  return {
    ...{ name, operands, options },
    description: `About ${name}.`,
    examples: [{ command: `k8s ${name}`, description: 'Do it' }],
    handler: () => Promise.resolve(0),
  }
}

const group = 'Tokens'
const file: Operand = { placeholder: 'FILE', description: 'a file' }
const name: Operand = { placeholder: 'NAME', description: 'a name', isOptional: true }

/** A group of commands, commands of one word, and a command that has the name of a group. */
const commands: Commands = {
  all: [
    command('run', [], { 'data-dir': { group, description: 'Where.', kind: duration } }),
    command('token create', [name], {
      ttl: { group, description: 'How long it is good.', kind: duration },
      quiet: { group, description: 'Print nothing.', kind: boolean },
    }),
    command('token ls'),
    command('join', [file, name]),
    command('join undo'),
  ],
  default: command('run'),
  external: ['tool'],
  groups: { token: 'Let others in.' },
}

/** As "NAME [OPERANDS] {FLAGS}"; what asks for help as "help of ...". */
function parsed(line: string): string {
  const request = parseArguments(
    line.split(' ').filter((word) => word !== ''),
    commands,
  )
  if (request.kind === 'help') return `help of ${request.command?.name ?? request.group ?? 'all'}`
  if (request.kind === 'version') return 'version'
  const flags = request.flags.map((flag) => `${flag.name}=${flag.text}`)
  return `${request.command.name} [${request.operands.join(' ')}] {${flags.join(' ')}}`
}

function refusal(line: string): string {
  try {
    return `taken: ${parsed(line)}`
  } catch (error) {
    const { code, message } = error as { code?: string; message: string }
    return code === 'USAGE' ? message : `not a usage error: ${message}`
  }
}

describe('a name of two words', () => {
  test.each([
    ['token create', 'token create [] {}'],
    ['token create worker', 'token create [worker] {}'],
    ['token create --ttl=5m worker', 'token create [worker] {ttl=5m}'],
    ['token --ttl 5m create worker --quiet', 'token create [worker] {ttl=5m quiet=true}'],
    ['--ttl=5m token create', 'token create [] {ttl=5m}'],
    ['token create -- --odd', 'token create [--odd] {}'],
    ['token ls', 'token ls [] {}'],
    ['join file', 'join [file] {}'],
    ['join file name', 'join [file name] {}'],
    ['join undo', 'join undo [] {}'],
    ['', 'run [] {}'],
    ['token create --version', 'version'],
  ])('%j is %s', (line, expected) => {
    expect(parsed(line)).toBe(expected)
  })

  test.each([
    ['help token', 'help of token'],
    ['token --help', 'help of token'],
    ['token help', 'help of token'],
    ['help token create', 'help of token create'],
    ['token help create', 'help of token create'],
    ['token create --help', 'help of token create'],
    ['token create worker -h', 'help of token create'],
    ['help join', 'help of join'],
    ['join help undo', 'help of join undo'],
    ['help', 'help of all'],
  ])('%j is %s', (line, expected) => {
    expect(parsed(line)).toBe(expected)
  })

  test.each([
    ['token', 'cannot run token alone: there is token create, token ls; k8s help token describes them'],
    ['token creat', 'cannot run token creat: there is no such command; did you mean token create?'],
    ['token remove', 'cannot run token remove: there is no such command; k8s help token lists them'],
    ['tokn create', 'cannot run tokn: there is no such command; did you mean token?'],
    ['token create a b', 'cannot use b: k8s token create takes no more than [NAME]'],
    ['token ls a', 'cannot use a: k8s token ls takes flags only'],
    ['token ls --ttl=5m', 'cannot use --ttl with k8s token ls: it belongs to k8s token create'],
    ['token create --tll=5m', 'cannot use --tll: there is no such flag; did you mean --ttl?'],
    ['join', 'cannot run join without FILE: a file; the form is k8s join FILE [NAME]'],
    ['help token create worker', 'cannot use worker: there is help for k8s token create'],
    ['help nothing', 'cannot run nothing: there is no such command; k8s --help lists the commands'],
  ])('%j is refused: %s', (line, message) => {
    expect(refusal(line)).toBe(message)
  })
})

describe('the help', () => {
  test('of all lists the commands of groups, too', async () => {
    const text = await renderCommands(commands)
    for (const line of ['k8s run', 'k8s token create', 'k8s token ls', 'k8s join undo', 'k8s tool'])
      expect(text).toMatch(new RegExp(`^ {2}${line}\\b`, 'm'))
  })

  test('of a group says what it is for, and lists its commands alone', async () => {
    const text = await renderGroup('token', commands)
    expect(text).toMatch(/^Let others in\.\n\nUsage: k8s token COMMAND \[FLAGS\]\n/)
    expect(text).toContain('About token create.')
    expect(text).not.toContain('About join')
  })

  test('of a command of a group has its operands and flags', async () => {
    const text = await renderCommand(commands.all[1] as Command, commands)
    expect(text).toContain('Usage: k8s token create [NAME] [FLAGS]\n\nNAME: a name.')
    expect(text).toMatch(/^Tokens:\n {6}--ttl /m)
  })
})

describe('the commands that there are', () => {
  test('have a sentence for each of their groups', () => {
    const words = real.all.flatMap(({ name: full }) =>
      full.includes(' ') ? full.split(' ').slice(0, 1) : [],
    )
    expect(Object.keys(real.groups).sort()).toEqual([...new Set(words)].sort())
  })

  test('have each name once, of one word or two', () => {
    const names = real.all.map(({ name: full }) => full)
    expect(new Set(names).size).toBe(names.length)
    for (const full of [...names, ...real.external])
      expect(full).toMatch(/^[a-z]+(-[a-z]+)*( [a-z]+(-[a-z]+)*)?$/)
  })

  test('have one meaning for each short flag, but for what kubectl has taught everybody', () => {
    const meanings = new Map<string, string>([['h', 'help']])
    for (const { name, options } of real.all) {
      for (const [long, { short }] of Object.entries(options)) {
        if (short === undefined || (name === 'pod logs' && long === 'follow')) continue
        expect(meanings.get(short) ?? long, short).toBe(long)
        meanings.set(short, long)
      }
    }
  })

  test('take operands that may be left away last', () => {
    for (const { name: full, operands = [] } of real.all) {
      const firstOptional = operands.findIndex(({ isOptional }) => isOptional === true)
      const later = firstOptional === -1 ? [] : operands.slice(firstOptional)
      expect(
        later.filter(({ isOptional }) => isOptional !== true),
        full,
      ).toEqual([])
    }
  })
})
