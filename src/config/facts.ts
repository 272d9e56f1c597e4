import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { AppError, errorCode } from '../base/errors.ts'
import { privateMode, writeFileAtomicallySync } from '../base/files.ts'
import type { AnyConfig } from './config.ts'
import { type Paths, paths as pathsOf } from './paths.ts'
import { roleOf } from './roles.ts'
import { rowOf, schema } from './schema.ts'
import { camelCase } from './table/option.ts'

/*
 * What was fixed when a cluster, or a node, was created:
 *
 *    cluster.json   facts of the cluster. It is in every snapshot, and a restore brings it back.
 *    node.json      facts of this machine. No snapshot has it. A restore puts it aside, or leaves the role alone: the next start writes it.
 *
 * Both win over the defaults; a setting that contradicts them is refused (load.ts). Which settings are facts,
 * their rows say. A data directory of an earlier version gets the files with what it runs with.
 */

const formatVersion = 1
/** A few names and addresses; a snapshot may be anybody's. */
const recordLimitBytes = 64 * 1024

export interface Facts {
  /** By the names of the settings, as texts that their kinds parse. */
  readonly cluster: Readonly<Record<string, string>>
  readonly node: Readonly<Record<string, string>>
  /** The machine's name when the node's facts were written. */
  readonly hostName?: string | undefined
}

export interface NodeRecord {
  readonly settings?: Readonly<Record<string, string>>
  readonly hostName?: string
  /** Made at random; whatever a machine writes outside of its data directory is known by it. */
  readonly id?: string
  /** The Node's address when it was last known. */
  readonly address?: string
  /** Of the other family, in a cluster of both. */
  readonly otherAddress?: string | undefined
  /** The range that the Node's pods had when it was last known, of each family. */
  readonly podCidr?: string
  /** Of a cluster that others serve: its API servers when they were last known, and then where it was joined. */
  readonly servers?: readonly string[]
  /** Which ones it had before. */
  readonly formerServers?: readonly string[]
  readonly joinedAt?: readonly string[]
  /** Of k8s, when all of them were last seen to go with it. */
  readonly version?: string
  /** It has begun to join its cluster, and is not a whole part of it yet. */
  readonly isJoining?: boolean | undefined
  /** A server that was taken out of its cluster: it must not come back with what it had. */
  readonly hasLeft?: boolean
  /** Of a server that has a member of etcd: where the members of the others serve, when they were last known. */
  readonly otherMembers?: readonly string[]
}

export function readFacts(dataDir: string): Facts {
  const { clusterFacts, restoreDir, nodeRecord, pkiDir } = pathsOf({ dataDir })
  // A restore that is decided and not carried out yet brings its own.
  const restored = join(restoreDir, 'new', 'cluster.json')
  const { settings: cluster = {} } = readRecord(existsSync(restored) ? restored : clusterFacts)
  const kind = wasOfOthers(cluster) ? { 'cluster-init': 'false' } : {}
  const { settings: node = {}, hostName } = readRecord(nodeRecord)
  // Before there were such facts, a server had keys already, and a datastore has none.
  const role = node['role'] ?? (existsSync(pkiDir) ? 'server' : undefined)
  return {
    cluster: { ...cluster, ...kind },
    node: { ...node, ...(role !== undefined && { role }) },
    hostName,
  }
}

/** The role of what is in a data directory, as far as it is known. */
export function roleIn(dataDir: string): string | undefined {
  return knownFacts(dataDir)?.node['role']
}

/** Where the objects of the cluster in a data directory are, as far as it is known: an etcd is that of the servers, or others run it. */
export function storageIn(dataDir: string): 'embedded' | 'etcd-member' | 'external-etcd' {
  const { cluster } = knownFacts(dataDir) ?? {}
  if (cluster?.['server-mode'] !== 'ha') return 'embedded'
  return cluster['cluster-init'] === 'true' ? 'etcd-member' : 'external-etcd'
}

/** Facts of where a cluster is kept, which a snapshot of it leaves open. */
const storageFacts = ['server-mode', 'cluster-init', 'etcd-prefix']

/** The record of a cluster without them, whole; undefined: there is no record. */
export function portableRecord({ clusterFacts }: Pick<Paths, 'clusterFacts'>): string | undefined {
  if (!existsSync(clusterFacts)) return undefined
  return movedRecord(clusterFacts, {})
}

/** The facts of a cluster that is kept in this way, in the words of the settings. */
export interface StorageFacts {
  readonly 'server-mode'?: 'single' | 'ha'
  readonly 'cluster-init'?: 'true'
  readonly 'etcd-prefix'?: string
}

/** The record at `path` of a cluster that is kept elsewhere from now on. */
export function movedRecord(path: string, storage: StorageFacts): string {
  const record = readRecord(path)
  const others = Object.entries(record.settings ?? {}).filter(([name]) => !storageFacts.includes(name))
  return render({ ...record, settings: { ...Object.fromEntries(others), ...storage } })
}

/** Before servers brought an etcd, it was always one that others run. */
function wasOfOthers(cluster: Facts['cluster']): boolean {
  return cluster['server-mode'] === 'ha' && cluster['cluster-init'] === undefined
}

/** A damaged record says nothing. */
function knownFacts(dataDir: string): Facts | undefined {
  try {
    return readFacts(dataDir)
  } catch {
    return undefined
  }
}

/** Writes what of the facts is not on the disk yet. To be called once what they are facts of is there. */
export function keepFacts(config: AnyConfig, hostName?: string): void {
  const paths = pathsOf(config)
  const cluster = factsOf(config, 'cluster')
  if (Object.keys(cluster).length > 0) {
    const { settings } = readRecord(paths.clusterFacts)
    writeRecord(paths.clusterFacts, { settings: { ...cluster, ...settings } })
  }
  const { settings, hostName: former } = readRecord(paths.nodeRecord)
  const name = former ?? hostName
  updateNodeRecord(paths, {
    settings: { ...factsOf(config, 'node'), ...settings },
    ...(name !== undefined && { hostName: name }),
  })
}

/** Rejects with FACTS when the record cannot be read. */
export function readNodeRecord({ nodeRecord }: Pick<Paths, 'nodeRecord'>): NodeRecord {
  return readRecord(nodeRecord)
}

/** Rejects with FACTS when the record cannot be read, and with FILE_WRITE when it cannot be written. */
export function updateNodeRecord({ nodeRecord }: Pick<Paths, 'nodeRecord'>, changes: NodeRecord): void {
  writeRecord(nodeRecord, { ...readRecord(nodeRecord), ...changes })
}

/** What the record becomes with these changes, for who puts it in its place himself. Throws FACTS when it cannot be read. */
export function changedNodeRecord({ nodeRecord }: Pick<Paths, 'nodeRecord'>, changes: NodeRecord): string {
  return render({ ...readRecord(nodeRecord), ...changes })
}

/** Leaves of a node's record what it is and by what it is known outside, and nothing of who it is in its cluster. */
export function forgetNode({ nodeRecord }: Pick<Paths, 'nodeRecord'>): void {
  if (!existsSync(nodeRecord)) return
  const { settings: { role } = {}, id } = readRecord(nodeRecord)
  writeRecord(nodeRecord, {
    settings: { ...(role !== undefined && { role }) },
    ...(id !== undefined && { id }),
  })
}

export function newNodeId(): string {
  return randomBytes(8).toString('hex')
}

/** Of this data directory alone; made when there is none yet. Rejects as updateNodeRecord. */
export function nodeId(paths: Pick<Paths, 'nodeRecord'>): string {
  const id = readNodeRecord(paths).id ?? newNodeId()
  updateNodeRecord(paths, { id })
  return id
}

/** What a cluster's record is where nothing is known of it: the next start writes what it runs with. */
export const emptyRecord = render({ settings: {} })

function factsOf(config: AnyConfig, of: 'cluster' | 'node'): Record<string, string> {
  const values = config as unknown as Readonly<Record<string, unknown>>
  return Object.fromEntries(
    Object.keys(schema).flatMap((name) => {
      const [row, value] = [rowOf(name), values[camelCase(name)]]
      const isOfRole = row !== undefined && [...row.roles, ...(row.learntBy ?? [])].includes(roleOf(config))
      if (row?.factOf !== of || value === undefined || !isOfRole) return []
      return [
        [name, Array.isArray(value) ? value.join(row.separator === 'space' ? ' ' : ',') : String(value)],
      ]
    }),
  )
}

function readRecord(path: string): NodeRecord {
  let text: string
  try {
    const { size } = statSync(path)
    if (size > recordLimitBytes) throw new Error(`it has ${size} bytes; at most ${recordLimitBytes} are read`)
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    // Whoever may not read it is not root, and starts nothing.
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(errorCode(cause) ?? '')) return {}
    throw unusable(path, cause)
  }
  const record = parseRecord(path, text)
  const version = record.formatVersion ?? formatVersion
  if (version === formatVersion) return record
  throw unusable(
    path,
    new Error(`its format is ${String(version)}; this version of k8s reads ${formatVersion}`),
  )
}

function parseRecord(path: string, text: string): NodeRecord & { readonly formatVersion?: unknown } {
  try {
    const record = JSON.parse(text) as NodeRecord | null
    const texts = Object.values(record?.settings ?? {})
    if (typeof record === 'object' && record !== null && texts.every((value) => typeof value === 'string'))
      return record
    throw new Error('it is no record of facts')
  } catch (cause) {
    throw unusable(path, cause)
  }
}

function writeRecord(path: string, record: NodeRecord): void {
  const text = render(record)
  if (existsSync(path) && readFileSync(path, 'utf8') === text) return
  writeFileAtomicallySync(path, text, { mode: privateMode })
}

function render(record: NodeRecord): string {
  return `${JSON.stringify({ formatVersion, ...record }, null, 2)}\n`
}

function unusable(path: string, cause: unknown): AppError {
  return new AppError(
    `cannot use ${path}, which holds what was fixed at creation`,
    {
      code: 'FACTS',
      path,
      remedy: 'mend it, or remove it: the next start writes what the settings say then',
    },
    { cause },
  )
}
