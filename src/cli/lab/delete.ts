import { type Command, type Invocation, optionValues, requireRoot } from '../command.ts'
import { labOperand, labOptions } from './options.ts'

export const labDelete: Command = {
  name: 'lab delete',
  description: 'Remove a lab with all that runs in it.',
  examples: [{ command: 'k8s lab delete demo', description: 'Nothing of it is left' }],
  operands: [labOperand],
  options: labOptions,
  handler,
}

async function handler({ operands, flags, print }: Invocation): Promise<number> {
  const [name = ''] = operands
  const { labDir } = optionValues(labOptions, flags)
  requireRoot('delete a lab')
  const { deleteLab } = await import('../../lab/lab.ts')
  await deleteLab({ labDir, name })
  print(`Deleted ${name}.\n`)
  return 0
}
