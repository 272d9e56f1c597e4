import { loadClient } from '../client.ts'
import type { Command, Invocation } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { nodeNameOf, nodeOperand } from './options.ts'

export const nodeUncordon: Command = {
  name: 'node uncordon',
  description: 'Let a Node take pods again that was drained.',
  examples: [{ command: 'k8s node uncordon worker-1', description: 'When the machine is back' }],
  operands: [nodeOperand],
  options: daemonOptions,
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const name = nodeNameOf(invocation)
  const { adminKubeconfig } = await pathsOf(invocation)
  const { forgetRemoval, uncordonNode } = await loadClient(invocation)
  const { removedNodes } = await import('../../cluster/join/removed-nodes.ts')
  const wasCordoned = await uncordonNode(adminKubeconfig, name)
  // Of a removal that was interrupted.
  await forgetRemoval(adminKubeconfig, name, removedNodes)
  invocation.print(wasCordoned ? `${name} takes pods again.\n` : `${name} takes pods; it was not cordoned.\n`)
  return 0
}
