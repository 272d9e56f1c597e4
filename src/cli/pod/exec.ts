import { boolean } from '../../config/table/kinds.ts'
import { usageError } from '../../config/table/setting.ts'
import { loadClient } from '../client.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions } from '../daemon.ts'
import { containerOf, containerOptions, ownKubelet, podOperand } from './kubelet.ts'

const ownOptions = {
  stdin: {
    group: 'Command',
    description: 'Give the command the standard input.',
    kind: boolean,
    default: false,
    short: 'i',
  },
  tty: {
    group: 'Command',
    description: 'Give it a terminal; of use with --stdin.',
    kind: boolean,
    default: false,
    short: 't',
  },
}

export const podExec: Command = {
  name: 'pod exec',
  description: 'Run a command in a container of the kubelet alone.',
  details: 'Exits with the exit code of the command.',
  examples: [
    { command: 'k8s pod exec web -- ls -l /', description: 'One command' },
    { command: 'k8s pod exec web -it -- sh', description: 'A shell' },
  ],
  operands: [
    podOperand,
    { placeholder: 'COMMAND', description: 'what to run there, with its arguments', isRest: true },
  ],
  options: { ...containerOptions, ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { stdin: wantsInput, tty } = optionValues(ownOptions, invocation.flags)
  const { stdin, stdout, stderr } = process
  if (tty && !(stdin.isTTY && stdout.isTTY))
    throw usageError('cannot use --tty: the standard input and output are no terminal; leave it away')
  const kubelet = await ownKubelet(invocation)
  const target = await containerOf(kubelet, invocation)
  const { exec } = await loadClient(invocation)
  const isRaw = tty && wantsInput
  if (isRaw) stdin.setRawMode(true)
  try {
    return await exec({
      ...{ ...kubelet, ...target, tty, stdout, stderr },
      command: invocation.operands.slice(1),
      stdin: wantsInput ? stdin : undefined,
    })
  } finally {
    if (isRaw) stdin.setRawMode(false)
  }
}
