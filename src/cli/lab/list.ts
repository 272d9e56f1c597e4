import { type Command, type Invocation, optionValues, requireRoot } from '../command.ts'
import { outputOption } from '../output.ts'
import { renderTable } from '../table.ts'
import { labOptions } from './options.ts'

const ownOptions = { output: outputOption, ...labOptions }

export const labList: Command = {
  name: 'lab ls',
  description: 'List the nodes of all labs.',
  examples: [{ command: 'k8s lab ls', description: 'Names for enter and cut, addresses, and what each is' }],
  options: ownOptions,
  handler,
}

async function handler({ flags, print }: Invocation): Promise<number> {
  const { labDir, output } = optionValues(ownOptions, flags)
  requireRoot('list labs')
  const { isThere, readLabs } = await import('../../lab/state.ts')
  const nodes = (await readLabs(labDir)).flatMap((lab) =>
    lab.nodes.map(({ name, role, host, init, isCut = false }) => ({
      ...{ lab: lab.name, name, role, address: `${lab.subnet}.${host}` },
      state: isThere(init) ? (isCut ? 'cut off' : 'running') : 'gone',
    })),
  )
  if (output === 'json') print(`${JSON.stringify({ nodes }, undefined, 2)}\n`)
  else if (nodes.length === 0) print(`There are no labs in ${labDir}.\n`)
  else {
    const rows = nodes.map(({ lab, name, role, address, state }) => [lab, name, role, address, state])
    print(renderTable(['LAB', 'NODE', 'ROLE', 'ADDRESS', 'STATE'], rows))
  }
  return 0
}
