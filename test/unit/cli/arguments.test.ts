import { describe, expect, test } from 'vitest'
import { parseArguments, type Request } from '../../../src/cli/arguments.ts'
import { commands } from '../../../src/cli/main.ts'

function parse(...argv: string[]): Request {
  return parseArguments(argv, commands)
}

/** The command's name and its flags, as they would be written. */
function run(...argv: string[]): string[] {
  const request = parse(...argv)
  if (request.kind !== 'run') return [request.kind]
  return [request.command.name, ...request.flags.map(({ name, text }) => `--${name}=${text}`)]
}

describe('a command line', () => {
  test.each([
    [[], ['server']],
    [['--node-name=one'], ['server', '--node-name=one']],
    [
      ['--node-name', 'one'],
      ['server', '--node-name=one'],
    ],
    [
      ['server', '--v=5', '-v', '6'],
      ['server', '--v=5', '--v=6'],
    ],
    [
      ['--data-dir', '/x', 'status', '--wait'],
      ['status', '--data-dir=/x', '--wait=true'],
    ],
    [
      ['status', '--wait', '--data-dir=/x'],
      ['status', '--wait=true', '--data-dir=/x'],
    ],
    [
      ['status', '-o', 'json'],
      ['status', '--output=json'],
    ],
    [
      ['status', '-o=json'],
      ['status', '--output=json'],
    ],
    [
      ['status', '-ojson'],
      ['status', '--output=json'],
    ],
    [['--stop-pods'], ['server', '--stop-pods=true']],
    [['--stop-pods=maybe'], ['server', '--stop-pods=maybe']],
    [['--disable='], ['server', '--disable=']],
    [
      ['--kubelet-arg=feature-gates=A=true,B=false'],
      ['server', '--kubelet-arg=feature-gates=A=true,B=false'],
    ],
    [['--version'], ['version']],
    [['check', '--version'], ['version']],
    [
      ['db', '--data-dir=/x', 'status'],
      ['db status', '--data-dir=/x'],
    ],
    [['--help'], ['help']],
    [['-h'], ['help']],
    [['db', '--help'], ['help']],
    [['help', 'db'], ['help']],
    [['--version', '--help'], ['help']],
  ])('%j is %j', (argv, expected) => {
    expect(run(...argv)).toEqual(expected)
  })

  test.each([
    [['help', 'status'], 'status'],
    [['status', '--help'], 'status'],
    [['--help', 'status'], 'status'],
    [['server', '-h'], 'server'],
    [['help', 'db', 'status'], 'db status'],
    [['db', 'status', '-h'], 'db status'],
    [['--help'], undefined],
    [['help'], undefined],
  ])('%j asks for the help of %s', (argv, expected) => {
    const request = parse(...argv)
    expect(request.kind === 'help' && request.command?.name).toBe(expected)
  })
})

describe('refused', () => {
  test.each([
    [['--node-nam', 'x'], 'cannot use --node-nam: there is no such flag; did you mean --node-name?'],
    [['--nodeName=x'], 'cannot use --nodeName: there is no such flag; did you mean --node-name?'],
    [
      ['--password=secret'],
      'cannot use --password: there is no such flag; k8s server --help lists the flags',
    ],
    [['--constructor'], 'cannot use --constructor: there is no such flag; k8s server --help lists the flags'],
    [['status', '--wiat'], 'cannot use --wiat: there is no such flag; did you mean --wait?'],
    [['-x'], 'cannot use -x: there is no such flag; k8s server --help lists the flags'],
    [['--wait'], 'cannot use --wait with k8s server: it belongs to k8s status'],
    [
      ['version', '--data-dir=/x'],
      expect.stringMatching(
        /^cannot use --data-dir with k8s version: it belongs to k8s server, k8s agent, k8s kubelet, \d+ more$/,
      ),
    ],
    [['dbb'], 'cannot run dbb: there is no such command; did you mean db?'],
    [['db', 'deploy'], 'cannot run db deploy: there is no such command; k8s help db lists them'],
    [['chekc'], 'cannot run chekc: there is no such command; did you mean check?'],
    [['deploy'], 'cannot run deploy: there is no such command; k8s --help lists the commands'],
    [['help', 'chekc'], 'cannot run chekc: there is no such command; did you mean check?'],
    [['virtual-node'], 'cannot run virtual-node: the role virtual-node is not there yet'],
    [['status', 'now'], 'cannot use now: k8s status takes flags only'],
    [['server', '--', '--v=5'], 'cannot use --v=5: k8s server takes flags only'],
    [
      ['--data-dir'],
      'cannot use --data-dir: it has no value; allowed is the path of a directory other than /, without colons and commas',
    ],
    [
      ['--data-dir', '--v=5'],
      'cannot use --data-dir: it has no value; allowed is the path of a directory other than /, without colons and commas',
    ],
    [
      ['kubectl', 'get', 'pods', '-o', 'wide'],
      'cannot run kubectl from here: the built artifact (dist/artifacts/k8s) has it, or build/payload/bin/kubectl',
    ],
  ])('%j', (argv, message) => {
    expect(() => parse(...argv)).toThrow(expect.objectContaining({ code: 'USAGE', message }))
  })
})

test('options of one name take a value in every command, or in none', () => {
  const forms = new Map<string, boolean>()
  for (const { options } of commands.all) {
    for (const [name, { kind }] of Object.entries(options)) {
      const isSwitch = kind.bare !== undefined
      expect(forms.get(name) ?? isSwitch, name).toBe(isSwitch)
      forms.set(name, isSwitch)
    }
  }
})
