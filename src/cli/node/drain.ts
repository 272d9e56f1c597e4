import { boolean } from '../../config/table/kinds.ts'
import { loadClient } from '../client.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { clientOptions, drainOptions, nodeNameOf, nodeOperand } from './options.ts'

const ownOptions = {
  'ignore-daemonsets': {
    group: 'Draining',
    description: 'Leave pods of DaemonSets, which would be back at once.',
    kind: boolean,
    default: false,
  },
}

export const nodeDrain: Command = {
  name: 'node drain',
  description: 'Have the pods of a Node go elsewhere, and no new ones come.',
  details: `Cordons the Node, evicts its pods as kubectl drain does, and waits until they are gone. A PodDisruptionBudget that allows no
eviction now is waited for. Static pods stay. Refused, before anything is changed, are pods of DaemonSets, pods with an emptyDir, and
pods that no controller brings back, each without its flag. What was interrupted, or took longer than
--timeout (0s: any time), goes on with the same command; k8s node uncordon takes it back.`,
  examples: [
    {
      command: 'k8s node drain worker-1 --ignore-daemonsets --delete-emptydir-data',
      description: 'Before the machine is restarted or upgraded',
    },
    {
      command: 'k8s node drain worker-1 --ignore-daemonsets --dry-run',
      description: 'What would be evicted',
    },
  ],
  operands: [nodeOperand],
  options: { ...ownOptions, ...drainOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const name = nodeNameOf(invocation)
  const { ignoreDaemonsets } = optionValues(ownOptions, invocation.flags)
  const { adminKubeconfig } = await pathsOf(invocation)
  const { drainNode } = await loadClient(invocation)
  await drainNode(adminKubeconfig, name, { ...clientOptions(invocation), ignoreDaemonsets })
  return 0
}
