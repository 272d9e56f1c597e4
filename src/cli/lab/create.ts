import { existsSync } from 'node:fs'
import { AppError } from '../../base/errors.ts'
import { file, integer } from '../../config/table/kinds.ts'
import { usageError } from '../../config/table/setting.ts'
import { type Command, type Invocation, optionValues, requirePayload, requireRoot } from '../command.ts'
import { labOperand, labOptions } from './options.ts'

const ownOptions = {
  servers: {
    group: 'Lab',
    description: 'How many servers it has: one alone, or several with an etcd of their own.',
    kind: integer({ from: 1, to: 7 }),
    default: 1,
  },
  agents: {
    group: 'Lab',
    description: 'How many agents it has.',
    kind: integer({ from: 0, to: 20 }),
    default: 0,
  },
  image: {
    group: 'Lab',
    description: 'An archive of container images that every node imports, as from its directory of images.',
    kind: file,
    separator: 'comma' as const,
    default: [],
  },
  ...labOptions,
}

/** Of names of Nodes and of network links. */
const nameLimit = 20

export const labCreate: Command = {
  name: 'lab create',
  description: 'Make a cluster of several nodes on this machine, each in namespaces of its own.',
  details: `The nodes are real: each runs this very k8s on a machine of its own processes, mounts and network, without Docker or
virtual machines. They reach each other and this machine, and nothing else: images come from archives. Returns when all
nodes are Ready; what a failed one has made is removed.`,
  examples: [
    { command: 'k8s lab create demo --agents=2', description: 'A server and two agents' },
    {
      command: 'k8s lab create demo --servers=3 --agents=2',
      description: 'Three servers, of which any one may fail, and two agents',
    },
    {
      command: 'k8s lab kubeconfig demo >demo.kubeconfig && kubectl --kubeconfig=demo.kubeconfig get nodes',
      description: 'Use it from here',
    },
    { command: 'k8s lab delete demo', description: 'Remove all of it' },
  ],
  operands: [labOperand],
  options: ownOptions,
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { environment, operands, flags, print } = invocation
  const [name = ''] = operands
  const { labDir, image: images, ...counts } = optionValues(ownOptions, flags)
  if (name.length > nameLimit || !/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(name)) {
    throw usageError(
      `cannot make a lab named ${name}: allowed are at most ${nameLimit} lower-case letters, digits and dashes between them`,
    )
  }
  const missing = images.find((path) => !existsSync(path))
  if (missing !== undefined) throw usageError(`cannot use image=${missing}: there is no such file`)
  requireRoot('make a lab')
  requirePayload(environment)
  const artifact = environment['K8S_ARTIFACT']
  const payload = environment['K8S_PAYLOAD_DIR']
  if (artifact === undefined || payload === undefined) {
    throw new AppError('cannot make a lab from sources: its nodes run the built artifact', {
      code: 'NO_ARTIFACT',
      remedy: 'call dist/artifacts/k8s',
    })
  }
  const [{ createLab }, { findLab }] = await Promise.all([
    import('../../lab/lab.ts'),
    import('../../lab/state.ts'),
  ])
  if ((await findLab(labDir, name)) !== undefined) {
    throw new AppError(`cannot make the lab ${name}: there is one of that name`, {
      code: 'LAB_EXISTS',
      remedy: `remove it with k8s lab delete ${name}`,
    })
  }
  const tell = (line: string) => print(`${line}\n`)
  await createLab({ labDir, name, ...counts, images, artifact, payload, tell })
  print(`\nkubectl reaches it with: export KUBECONFIG=${labDir}/${name}/kubeconfig\n`)
  return 0
}
