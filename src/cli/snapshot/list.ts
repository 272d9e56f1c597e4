import type { Listing } from '../../snapshot/store.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { outputOption } from '../output.ts'
import { renderTable } from '../table.ts'
import { placeOptions, snapshotSettings } from './place.ts'

const ownOptions = { output: outputOption }

export const snapshotList: Command = {
  name: 'snapshot ls',
  description: 'List the snapshots, the newest first.',
  details: 'Reads the beginning and the end of each file; a restore checks all of it.',
  examples: [{ command: 'k8s snapshot ls -o json', description: 'With their digests, for a program' }],
  options: { ...ownOptions, ...placeOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { output } = optionValues(ownOptions, invocation.flags)
  const { dir } = await snapshotSettings(invocation)
  const { aheadWarning, listSnapshots } = await import('../../snapshot/store.ts')
  const listing = await listSnapshots(dir)
  invocation.print(
    output === 'json' ? renderJson(listing) : render(dir, listing, aheadWarning(listing.snapshots)),
  )
  return listing.complaints.length === 0 ? 0 : 1
}

function render(dir: string, { snapshots, complaints }: Listing, warning: string | undefined): string {
  const rows = snapshots.map(
    ({ fileName, bytes, header: { createdAt, revision, keys, sealed, version } }) => [
      fileName,
      createdAt,
      String(bytes),
      String(revision),
      String(keys),
      sealed === null ? 'no' : 'yes',
      version,
    ],
  )
  const header = ['NAME', 'CREATED', 'BYTES', 'REVISION', 'KEYS', 'SEALED', 'VERSION']
  const table = rows.length === 0 ? `There are no snapshots in ${dir}.\n` : renderTable(header, rows)
  const lines = [...(warning === undefined ? [] : [warning]), ...complaints]
  return [table, ...lines.map((line) => `${line}\n`)].join('')
}

function renderJson({ snapshots, complaints }: Listing): string {
  const plain = snapshots.map(({ path, name, bytes, digest, isAhead, header: { sealed, ...header } }) => ({
    ...{ path, name, bytes, sha256: digest, isAhead },
    ...header,
    sealed: sealed !== null,
  }))
  return `${JSON.stringify({ snapshots: plain, complaints }, null, 2)}\n`
}
