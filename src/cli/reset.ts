import type { Config } from '../config/config.ts'
import { boolean } from '../config/table/kinds.ts'
import { loadConfig } from '../config/load.ts'
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
import { refuseWhileRunning } from './daemon.ts'

const ownOptions = {
  force: {
    group: 'Resetting',
    description: 'Ask nothing.',
    kind: boolean,
    default: false,
    short: 'f',
  },
}

export const reset: Command = {
  name: 'reset',
  description: 'Remove everything that the server made on this machine, with all data of the cluster.',
  details: `Ends the pods, and removes mounts, network links, firewall rules, cgroups and the data directory, with the
snapshots in it. Takes the settings of the server, and refuses while it runs.`,
  examples: [
    { command: 'k8s stop --pods && k8s reset --force', description: 'Remove everything without a question' },
  ],
  options: { ...ownOptions, ...configOption, ...schema },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { flags, environment, print } = invocation
  const { force } = optionValues(ownOptions, flags)
  const config = await loadConfig({ ...sourcesOf(invocation), flags: withoutOwn(flags, ownOptions) })
  if (!force && !process.stdin.isTTY) {
    throw usageError(`cannot reset ${config.dataDir} without --force: there is no terminal to ask at`)
  }
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
  await resetNode(config, { payload, announce: (line) => print(`${line}\n`) })
  return 0
}

async function isConfirmed({ dataDir, kubeletRootDir, nodeName }: Config): Promise<boolean> {
  const { createInterface } = await import('node:readline/promises')
  using terminal = createInterface({ input: process.stdin, output: process.stdout })
  process.stdout.write(
    `This removes all data of the cluster on ${nodeName}: ${dataDir} and ${kubeletRootDir}.\n`,
  )
  return (await terminal.question('Type yes to go on: ')) === 'yes'
}
