import { readNodeRecord } from '../../config/facts.ts'
import { loadClient } from '../client.ts'
import type { Command, Invocation } from '../command.ts'
import { daemonOptions, pathsOf } from '../daemon.ts'
import { clientOptions, drainOptions, nodeNameOf, nodeOperand } from './options.ts'

export const nodeRemove: Command = {
  name: 'node remove',
  description: 'Take a Node out of the cluster for good.',
  details: `Drains it, leaving pods of DaemonSets, unless it is not Ready or --force says so; then deletes the Node, and what the cluster
keeps of its name. The machine is told, ends its pods and the daemon, and cannot register its Node again, though its certificate stays
valid, until it is reset and joins with a token. The last server is not removed.`,
  examples: [
    {
      command: 'k8s node remove worker-1 --delete-emptydir-data',
      description: 'Of a machine that is given up',
    },
    { command: 'k8s node remove worker-1 --force', description: 'Without draining it first' },
  ],
  operands: [nodeOperand],
  options: { ...drainOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const name = nodeNameOf(invocation)
  const paths = await pathsOf(invocation)
  const { removeNode } = await loadClient(invocation)
  const [{ removedNodes }, { promisesName }] = await Promise.all([
    import('../../cluster/join/removed-nodes.ts'),
    import('../../cluster/join/verdict.ts'),
  ])
  const options = clientOptions(invocation)
  const [namespace = '', promises = ''] = promisesName.split('/')
  const { wasRemoved, isServer } = await removeNode(paths.adminKubeconfig, name, {
    ...{ ...options, removed: removedNodes, promised: { namespace, name: promises } },
    ownNode: readNodeRecord(paths).settings?.['node-name'],
  })
  if (options.dryRun) return 0
  const done = wasRemoved ? `${name} was removed before.` : `${name} is removed.`
  const leave = isServer
    ? 'k8s etcd leave, where it has a member of etcd, else k8s stop --pods; then k8s reset --force, which take'
    : 'k8s reset --force, which takes'
  invocation.print(
    `${done} On that machine: ${leave} away what is left of the cluster there; it can join again after that.\n`,
  )
  return 0
}
