import { rmSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { makePrivateDirectorySync } from '../../base/files.ts'
import { boolean } from '../../config/table/kinds.ts'
import type { LiveEtcdOptions } from '../../datastore/transfer/live-etcd.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions } from '../daemon.ts'
import { databaseOf, etcdFileProgram } from './database.ts'
import { isEndpoint, liveOptions, tlsFiles } from './live-options.ts'

const ownOptions = {
  'skip-hash-check': {
    group: 'Importing',
    description: 'Take a file without a digest, such as member/snap/db of an etcd that does not run.',
    kind: boolean,
    default: false,
  },
}

export const dbImportEtcd: Command = {
  name: 'db import-etcd',
  description: 'Make a datastore of the data of an etcd.',
  details: `Takes a snapshot file, or a snapshot of an etcd that runs; keys, revisions, versions and leases stay
the same. There must be no datastore yet, and what uses that etcd should have stopped before: what happens
there afterwards is not taken over.`,
  examples: [
    {
      command: 'k8s db import-etcd /mnt/snapshot.db',
      description: 'From a file that etcdctl snapshot save made',
    },
    { command: 'k8s db import-etcd http://10.0.0.5:2379', description: 'From an etcd that runs' },
  ],
  operands: [{ placeholder: 'SOURCE', description: 'a snapshot file, or http(s)://HOST:PORT' }],
  options: { ...ownOptions, ...liveOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { flags, operands, environment, print } = invocation
  const source = operands[0] ?? ''
  const { skipHashCheck } = optionValues(ownOptions, flags)
  const tls = tlsFiles(optionValues(liveOptions, flags))
  const database = await databaseOf(invocation)
  const program = await etcdFileProgram(environment)
  const [{ importEtcdFile }, { refuseExisting }] = await Promise.all([
    import('../../datastore/transfer/etcd.ts'),
    import('../../datastore/transfer/target.ts'),
  ])
  refuseExisting(database.path)
  const isLive = isEndpoint(source)
  const file = isLive ? `${database.path}.import` : resolve(source)
  try {
    if (isLive) await saveSnapshot({ endpoint: source, ...tls }, file)
    const { report, hadAuth } = await importEtcdFile({ database, program, file, wantsDigest: !skipHashCheck })
    print(
      `${database.path} has ${report.keys} keys and ${report.leases} leases at revision ${report.revision}.\n`,
    )
    if (hadAuth)
      print('The users and roles of the etcd were left out: here, certificates decide who may connect.\n')
  } finally {
    if (isLive) rmSync(file, { force: true })
  }
  return 0
}

async function saveSnapshot(options: LiveEtcdOptions, file: string): Promise<void> {
  const { LiveEtcd } = await import('../../datastore/transfer/live-etcd.ts')
  makePrivateDirectorySync(dirname(file))
  rmSync(file, { force: true })
  using etcd = new LiveEtcd(options)
  await etcd.saveSnapshot(file)
}
