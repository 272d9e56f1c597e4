import type { Command, Invocation } from '../command.ts'
import { placeOptions, retentionOption, snapshotSettings } from './place.ts'

export const snapshotPrune: Command = {
  name: 'snapshot prune',
  description: 'Remove old snapshots.',
  details: `Keeps the newest of each name and cluster; the schedule does the same for its own (scheduled-NODE). Those that
are dated later than now are told, and neither counted nor removed.`,
  examples: [
    { command: 'k8s snapshot prune --snapshot-retention=2', description: 'Keep two of each name' },
    { command: 'k8s snapshot prune on-demand', description: 'Remove old ones of one name alone' },
  ],
  operands: [
    { placeholder: 'NAME', description: 'the first part of their names, else all', isOptional: true },
  ],
  options: { ...placeOptions, ...retentionOption },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { dir, retention } = await snapshotSettings(invocation)
  const { pruneSnapshots } = await import('../../snapshot/store.ts')
  const { removed, warning } = await pruneSnapshots(dir, { retention, name: invocation.operands[0] })
  invocation.print(removed.map((fileName) => `removed ${fileName}\n`).join(''))
  if (warning !== undefined) invocation.print(`${warning}\n`)
  return 0
}
