import { storageIn } from '../../config/facts.ts'
import { usageError } from '../../config/table/setting.ts'
import { type Command, type Invocation, requirePayload } from '../command.ts'
import { placeOptions, secretOf, secretOption, snapshotSettings } from './place.ts'

const defaultName = 'on-demand'

export const snapshotSave: Command = {
  name: 'snapshot save',
  description: 'Take a snapshot of the cluster.',
  details: `It holds the datastore as it is at one moment, the authorities, the service accounts' key, the
encryption key and what is fixed since the cluster was created. Works while the daemon runs, which takes snapshots on a schedule of its own, too; for a
cluster in an etcd it has to. Who can read one that is not sealed has the cluster.`,
  examples: [
    { command: 'k8s snapshot save', description: 'Take one into snapshots/ of the data directory' },
    {
      command: 'k8s snapshot save before-upgrade --snapshot-secret-file=/root/secret',
      description: 'Give it a name, and seal it',
    },
  ],
  operands: [
    { placeholder: 'NAME', description: `the first part of its name, else ${defaultName}`, isOptional: true },
  ],
  options: { ...placeOptions, ...secretOption },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { operands, environment, print } = invocation
  const [name = defaultName] = operands
  // What is hidden, or has a directory in it, is no name.
  if (!/^[A-Za-z0-9][\w.-]{0,99}$/.test(name)) {
    throw usageError(
      `cannot use the name ${JSON.stringify(name)}: allowed are up to 100 letters, digits, "-", "_" and ".", a letter or digit first`,
    )
  }
  const settings = await snapshotSettings(invocation)
  requirePayload(environment)
  const [{ openPayload }, { ofDatabase, saveSnapshot }] = await Promise.all([
    import('../../payload/payload.ts'),
    import('../../snapshot/save.ts'),
  ])
  const payload = openPayload(environment['K8S_PAYLOAD_DIR'])
  const { paths } = settings
  const source =
    storageIn(paths.dataDir) === 'embedded'
      ? ofDatabase(paths, payload.sqliteAddon)
      : await (await import('./etcd-source.ts')).ofEtcd(paths, payload)
  const { path, bytes, header, digest } = await saveSnapshot({
    paths,
    source,
    dir: settings.dir,
    nativeBinding: payload.sqliteAddon,
    version: payload.version.gitVersion,
    name,
    secret: await secretOf(settings),
  })
  const { revision, keys } = header
  print(`${path}\nrevision ${revision}, ${keys} keys, ${bytes} bytes, sha256 ${digest}\n`)
  return 0
}
