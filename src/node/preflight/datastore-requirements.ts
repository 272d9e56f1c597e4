import { statfsSync } from 'node:fs'
import type { DatastoreConfig } from '../../config/config.ts'
import { detectHost } from '../facts/host.ts'
import type { HostFiles } from '../facts/host-files.ts'
import { dataDirectory, gibibyte, nearestExisting } from './mount-requirements.ts'
import { listeningPorts } from './network-requirements.ts'
import { missing, ok, type Requirement, warning } from './requirement.ts'
import { clock } from './system-requirements.ts'

/** The unpacked artifact takes 0.5 GiB. */
const requiredBytes = 1 * gibibyte

interface DatastoreExamination {
  readonly config: DatastoreConfig
  readonly root: string
  readonly files: HostFiles
  readonly isRunning: boolean
  readonly now: Date
}

/** What a datastore alone asks of its machine: neither root nor anything of pods. */
export function datastoreRequirements(examination: DatastoreExamination): Requirement[] {
  const { config, root } = examination
  return [
    clock(examination),
    dataDirectory({ config, host: detectHost({ root }) }),
    space(examination),
    ...ports(examination),
  ]
}

function space({ config }: DatastoreExamination): Requirement {
  const name = 'disk space'
  const { bavail, bsize } = statfsSync(nearestExisting(config.dataDir))
  const freeBytes = bavail * bsize
  const detail = `${(freeBytes / gibibyte).toFixed(1)} GiB free`
  if (freeBytes < requiredBytes) return missing(name, detail, `free at least ${requiredBytes / gibibyte} GiB`)
  const { quotaBackendBytes } = config
  if (freeBytes >= quotaBackendBytes) return ok(name, detail)
  return warning(
    name,
    `${detail}, and the database may grow to ${(quotaBackendBytes / gibibyte).toFixed(1)} GiB`,
    'free some space, or set --quota-backend-bytes to less',
  )
}

function ports({ config, files, isRunning }: DatastoreExamination): Requirement[] {
  if (isRunning) return [ok('ports', 'in use by this datastore, which is running')]
  const { listenAddress, metricsAddress } = config
  const wanted = [
    ...('port' in listenAddress ? [{ port: listenAddress.port, flag: 'listen-address' }] : []),
    ...(metricsAddress === undefined ? [] : [{ port: metricsAddress.port, flag: 'metrics-address' }]),
  ]
  if (wanted.length === 0) return [ok('ports', 'none are needed')]
  const listening = listeningPorts(files)
  const taken = wanted.filter(({ port }) => listening.has(port))
  if (taken.length === 0) return [ok('ports', `${wanted.map(({ port }) => port).join(', ')} are free`)]
  return taken.map(({ port, flag }) =>
    missing(
      `port ${port}`,
      `taken; --${flag} has it`,
      `end what listens there, or choose another with --${flag}`,
    ),
  )
}
