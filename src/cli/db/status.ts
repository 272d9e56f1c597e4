import type { DatabaseReport } from '../../datastore/log/inspect.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions } from '../daemon.ts'
import { outputOption } from '../output.ts'
import { renderTable } from '../table.ts'
import { databaseOf } from './database.ts'

const ownOptions = { output: outputOption }

export const dbStatus: Command = {
  name: 'db status',
  description: 'Print what the database holds, and how large it is.',
  details: 'Reads the file itself, also while the daemon runs. Changes nothing.',
  examples: [
    { command: 'k8s db status', description: 'The database of the server' },
    { command: 'k8s db status --data-dir=/srv/datastore -o json', description: 'Another one, for a program' },
  ],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { output } = optionValues(ownOptions, invocation.flags)
  const file = await databaseOf(invocation)
  const { inspectDatabase } = await import('../../datastore/log/inspect.ts')
  const report = inspectDatabase(file)
  invocation.print(output === 'json' ? `${JSON.stringify(report, null, 2)}\n` : render(report))
  return 0
}

function render(report: DatabaseReport): string {
  const rows = [
    ['file', report.path],
    ['schema version', report.schemaVersion],
    ['in use by', report.ownerPid === null ? 'nobody' : `process ${report.ownerPid}`],
    ['revision', report.revision],
    ['compacted revision', report.compactedRevision ?? 'none'],
    ['keys', report.keys],
    ['versions', report.versions],
    ['leases', report.leases],
    ['file bytes', report.fileBytes],
    ['live bytes', report.liveBytes],
    ['free bytes', report.freeBytes],
    ['WAL bytes', report.walBytes],
    ['alarms', report.alarms.length === 0 ? 'none' : report.alarms.join(', ')],
  ]
  return renderTable(
    ['WHAT', 'VALUE'],
    rows.map((row) => row.map(String)),
  )
}
