import { resolve } from 'node:path'
import { AppError } from '../../base/errors.ts'
import type { DatabaseFile } from '../../datastore/log/inspect.ts'
import type { LiveEtcdOptions } from '../../datastore/transfer/live-etcd.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions } from '../daemon.ts'
import { databaseOf, etcdFileProgram } from './database.ts'
import { isEndpoint, liveOptions, tlsFiles } from './live-options.ts'

export const dbExportEtcd: Command = {
  name: 'db export-etcd',
  description: 'Give all data to an etcd: as a snapshot file, or by putting them into one that runs.',
  details: `A file is what etcdctl snapshot save would make, with all revisions, versions and leases; etcdutl
snapshot restore makes an etcd of it. An etcd that runs must have no keys; it gives them new revisions.
Works while the datastore serves: what is exported is its state at one moment.`,
  examples: [
    { command: 'k8s db export-etcd /mnt/snapshot.db', description: 'Write a file' },
    {
      command: 'k8s db export-etcd https://10.0.0.5:2379 --cacert=ca.crt --cert=client.crt --key=client.key',
      description: 'Put all keys into an etcd that runs',
    },
  ],
  operands: [{ placeholder: 'TARGET', description: 'a file that does not exist, or http(s)://HOST:PORT' }],
  options: { ...liveOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { flags, operands, environment, print } = invocation
  const target = operands[0] ?? ''
  const tls = tlsFiles(optionValues(liveOptions, flags))
  const database = await databaseOf(invocation)
  if (isEndpoint(target)) {
    const { keys, leases } = await putIntoEtcd(database, { endpoint: target, ...tls })
    print(`${target} has ${keys} keys and ${leases} leases now, with revisions of its own.\n`)
    return 0
  }
  const { exportEtcdFile } = await import('../../datastore/transfer/etcd.ts')
  const file = resolve(target)
  const { revision } = await exportEtcdFile({ database, program: await etcdFileProgram(environment), file })
  print(`${file} has everything up to revision ${revision}.\n`)
  return 0
}

async function putIntoEtcd(database: DatabaseFile, options: LiveEtcdOptions) {
  const [{ LiveEtcd }, { Dump }] = await Promise.all([
    import('../../datastore/transfer/live-etcd.ts'),
    import('../../datastore/log/dump.ts'),
  ])
  using etcd = new LiveEtcd(options)
  const count = await etcd.count()
  if (count > 0) {
    throw new AppError(`cannot export: the etcd at ${options.endpoint} has ${count} keys`, {
      code: 'EXPORT_EXISTS',
      remedy: 'name one that is empty',
    })
  }
  using dump = new Dump(database)
  return await etcd.putAll(dump)
}
