import { readFileIfPresent } from '../../base/files.ts'
import { AppError } from '../../base/errors.ts'
import { type Command, type Invocation, optionValues, requireRoot } from '../command.ts'
import { labOperand, labOptions } from './options.ts'

export const labKubeconfig: Command = {
  name: 'lab kubeconfig',
  description: 'Print the kubeconfig by which this machine reaches a lab, with full rights.',
  examples: [{ command: 'k8s lab kubeconfig demo >demo.kubeconfig', description: 'Keep it in a file' }],
  operands: [labOperand],
  options: labOptions,
  handler,
}

async function handler({ operands, flags, print }: Invocation): Promise<number> {
  const [name = ''] = operands
  const { labDir } = optionValues(labOptions, flags)
  requireRoot('read the kubeconfig of a lab')
  const { labPaths, requireLab } = await import('../../lab/state.ts')
  await requireLab(labDir, name)
  const text = await readFileIfPresent(labPaths(labDir, name).kubeconfig)
  if (text === undefined) {
    throw new AppError(`cannot print the kubeconfig of ${name}: its first server was not ready yet`, {
      code: 'NO_KUBECONFIG',
      remedy: 'wait for k8s lab create, or delete the lab',
    })
  }
  print(text)
  return 0
}
