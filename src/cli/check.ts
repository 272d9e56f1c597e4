import { hasNode } from '../config/config.ts'
import { loadAnyConfig } from '../config/load.ts'
import { readOwnConfig } from '../config/own-kubelet-config.ts'
import { schema } from '../config/schema.ts'
import {
  type Command,
  configOption,
  type Invocation,
  optionValues,
  sourcesOf,
  withoutOwn,
} from './command.ts'
import { outputOption } from './output.ts'
import { renderTable } from './table.ts'

const ownOptions = { output: outputOption }

export const check: Command = {
  name: 'check',
  description:
    'Look whether this machine can run its role of the cluster, and say what to do where it cannot.',
  details:
    'Takes the settings of the role that this machine has, and changes nothing. Exits with 1 when something required is missing.',
  examples: [
    { command: 'k8s check', description: 'Look at this machine with the settings of its role' },
    { command: 'k8s check -o json', description: 'The same for a program' },
  ],
  options: { ...ownOptions, ...configOption, ...schema },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { flags, print } = invocation
  const { output } = optionValues(ownOptions, flags)
  const config = await loadAnyConfig({ ...sourcesOf(invocation), flags: withoutOwn(flags, ownOptions) })
  if (config.role === 'kubelet') await readOwnConfig(config)
  const { preflight } = await import('../node/preflight/preflight.ts')
  const requirements = await preflight(config)
  const missing = requirements.filter(({ state, required }) => required && state === 'missing')
  if (output === 'json') {
    print(`${JSON.stringify(requirements, null, 2)}\n`)
    return missing.length === 0 ? 0 : 1
  }
  const rows = requirements.map(({ name, state, detail }) => [name, state, detail])
  print(renderTable(['REQUIREMENT', 'STATE', 'DETAIL'], rows))
  const remedies = requirements.filter(({ state, remedy }) => state !== 'ok' && remedy !== undefined)
  for (const { name, remedy } of remedies) print(`\n${name}: ${remedy}\n`)
  const role = config.role === 'kubelet' ? 'a kubelet' : hasNode(config) ? 'the cluster' : 'the datastore'
  print(
    missing.length === 0
      ? `\nThis machine can run ${role}.\n`
      : `\nThis machine cannot run ${role}: ${missing.map(({ name }) => name).join(', ')}.\n`,
  )
  return missing.length === 0 ? 0 : 1
}
