import { readNodeRecord, storageIn } from '../config/facts.ts'
import { type AnyConfig, hasNode } from '../config/config.ts'
import { boolean } from '../config/table/kinds.ts'
import { loadAnyConfig } from '../config/load.ts'
import { paths } from '../config/paths.ts'
import { schema } from '../config/schema.ts'
import { usageError } from '../config/table/setting.ts'
import {
  type Command,
  configOption,
  type Invocation,
  optionValues,
  requirePayload,
  sourcesOf,
  withoutOwn,
} from './command.ts'

const ownOptions = {
  force: {
    group: 'Resetting',
    description: 'Go on without a question, whatever is lost.',
    kind: boolean,
    default: false,
    short: 'f',
  },
  'old-payloads': {
    group: 'Resetting',
    description:
      'Remove only what earlier versions unpacked and nothing runs from; the version before stays.',
    kind: boolean,
    default: false,
  },
}

export const reset: Command = {
  name: 'reset',
  description: 'Remove everything that the daemon made on this machine, with all data of the cluster.',
  details: `Ends the pods, and removes mounts, network links, firewall rules, cgroups and the data directory, with the
snapshots and volumes in it; of a datastore alone, the data directory is all there is, and of a kubelet alone its manifests stay. Takes the settings of the role that
this machine has, and refuses while it runs.`,
  examples: [
    { command: 'k8s stop --pods && k8s reset --force', description: 'Remove everything without a question' },
    {
      command: 'k8s reset --old-payloads',
      description: 'Free the disk of earlier versions, while it runs, too',
    },
  ],
  options: { ...ownOptions, ...configOption, ...schema },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { flags, environment, print } = invocation
  const { force, oldPayloads } = optionValues(ownOptions, flags)
  const given = { ...sourcesOf(invocation), flags: withoutOwn(flags, ownOptions) }
  const config = await loadAnyConfig({ ...given, factsWin: true })
  if (oldPayloads) return removeOld(config, invocation)
  if (!force && !process.stdin.isTTY) {
    throw usageError(`cannot reset ${config.dataDir} without --force: there is no terminal to ask at`)
  }
  const { refuseWhileRunning } = await import('../control/client.ts')
  await refuseWhileRunning(paths(config).controlSocket, 'reset')
  requirePayload(environment)
  if (!force && !(await isConfirmed(config))) {
    print('Nothing was removed.\n')
    return 1
  }
  const [{ openPayload }, { resetNode }] = await Promise.all([
    import('../payload/payload.ts'),
    import('../cluster/reset.ts'),
  ])
  const payload = openPayload(environment['K8S_PAYLOAD_DIR'])
  const isOneOfSeveral = hasOthers(config.dataDir)
  await resetNode(config, { payload, announce: (line) => print(`${line}\n`) })
  if (config.role === 'agent')
    print(`Its Node is still in the cluster; on a server: k8s node remove ${config.nodeName}\n`)
  if (isOneOfSeveral && hasNode(config)) {
    print(
      `Its Node and its member of etcd are still there; on another server: k8s node remove ${config.nodeName}\n`,
    )
  }
  return 0
}

/** A record that is damaged keeps nobody from removing it. */
function hasOthers(dataDir: string): boolean {
  try {
    const { otherMembers = [], hasLeft = false } = readNodeRecord(paths({ dataDir }))
    return otherMembers.length > 0 && !hasLeft
  } catch {
    return false
  }
}

/** The daemon does the same every hour. */
async function removeOld(config: AnyConfig, { environment, print }: Invocation): Promise<number> {
  requirePayload(environment)
  const [{ openPayload }, { removeOldPayloads }, { payloadPlace }] = await Promise.all([
    import('../payload/payload.ts'),
    import('../payload/old-payloads.ts'),
    import('../cluster/tasks/payloads.ts'),
  ])
  const place = payloadPlace(openPayload(environment['K8S_PAYLOAD_DIR']), paths(config))
  const removed = await removeOldPayloads(place)
  for (const { dir, version, sizeBytes } of removed) {
    print(`removed ${dir} (${version}, ${(sizeBytes / 2 ** 20).toFixed(0)}Mi)\n`)
  }
  if (removed.length === 0)
    print('Nothing was removed: nothing is left of versions before the last one, or pods run from it.\n')
  return 0
}

async function isConfirmed(config: AnyConfig): Promise<boolean> {
  const [{ createInterface }, { lostVolumes }] = await Promise.all([
    import('node:readline/promises'),
    import('../node/reset/plan.ts'),
  ])
  using terminal = createInterface({ input: process.stdin, output: process.stdout })
  process.stdout.write(
    hasNode(config)
      ? `This removes all data of the ${config.role === 'kubelet' ? 'kubelet' : 'cluster'} on ${config.nodeName}: ${config.dataDir} and ${config.kubeletRootDir}.\n`
      : `This removes all data of the datastore: ${config.dataDir}.\n`,
  )
  const volumes = lostVolumes(config)
  if (volumes !== '') process.stdout.write(`The data of ${volumes} of pods go with it.\n`)
  if (storageIn(config.dataDir) === 'external-etcd')
    process.stdout.write(
      'The objects of the cluster stay in etcd, and the keys that their Secrets are encrypted with go.\n',
    )
  return (await terminal.question('Type yes to go on: ')) === 'yes'
}
