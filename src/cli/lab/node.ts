import { type Command, type Invocation, optionValues, requireRoot } from '../command.ts'
import { labOptions } from './options.ts'

/** Commands for one node of a lab. */

const operands = [{ placeholder: 'NODE', description: 'the name of the node, as k8s lab ls shows it' }]

export const labEnter: Command = {
  name: 'lab enter',
  description: 'Run a shell on a node of a lab.',
  details:
    'Without a terminal it runs what comes from the standard input. The log of k8s is /var/log/k8s.log there.',
  examples: [
    { command: 'k8s lab enter demo-server1', description: 'k8s status, k8s kubectl and k8s stop work there' },
    { command: 'echo k8s status | k8s lab enter demo-agent1', description: 'One command' },
  ],
  operands,
  options: labOptions,
  async handler(invocation) {
    const { node } = await nodeOf(invocation)
    const { enterNode } = await import('../../lab/lab.ts')
    return enterNode(node)
  },
}

export const labCut: Command = {
  name: 'lab cut',
  description: 'Cut a node of a lab off from the others, as when its cable is pulled.',
  examples: [{ command: 'k8s lab cut demo-agent1', description: 'Its Node is NotReady after 50 seconds' }],
  operands,
  options: labOptions,
  handler: (invocation) => cutOrHeal(invocation, true),
}

export const labHeal: Command = {
  name: 'lab heal',
  description: 'Give a node of a lab its network again.',
  examples: [{ command: 'k8s lab heal demo-agent1', description: 'Undo k8s lab cut' }],
  operands,
  options: labOptions,
  handler: (invocation) => cutOrHeal(invocation, false),
}

async function cutOrHeal(invocation: Invocation, isCut: boolean): Promise<number> {
  const { labDir, lab, node } = await nodeOf(invocation)
  const { setCut } = await import('../../lab/lab.ts')
  await setCut({ labDir, lab, node, isCut })
  invocation.print(`${node.name} is ${isCut ? 'cut off' : 'on the network'}.\n`)
  return 0
}

async function nodeOf({ flags, operands: [name = ''] }: Invocation) {
  const { labDir } = optionValues(labOptions, flags)
  requireRoot('touch a lab')
  const { requireNode } = await import('../../lab/state.ts')
  return { labDir, ...(await requireNode(labDir, name)) }
}
