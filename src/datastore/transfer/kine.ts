import type { DatabaseFile, DatabaseReport } from '../log/inspect.ts'
import { KineDatabase, type KineRow } from '../log/kine.ts'
import type { Loader } from '../log/load.ts'
import { type EncryptedValues, noteEncrypted } from './encrypted.ts'
import { fillDatabase } from './target.ts'

/** kine's own rows: its compacted revision, and what it puts where a revision was lost. */
const compactName = 'compact_rev_key'
const gapPrefix = 'gap-'
/** Where kine keeps what its clients know as compact_rev_key: "VERSION|VALUE" (pkg/server/compact.go). */
const clientCompactName = 'compact_rev_key_apiserver'
/** Where k3s keeps its certificates, encrypted with its token; no API server reads them. */
const bootstrapPrefix = '/bootstrap'

interface KineImport {
  readonly report: DatabaseReport
  /** k3s' own keys, which were left out. */
  readonly bootstrapKeys: readonly string[]
}

/**
 * Makes a database of kine's: the same keys, revisions and history. kine knows no versions, so the first
 * state that it has kept of a key that was updated before counts as version 2. Of its leases it knows the
 * seconds alone; they begin anew.
 */
export async function importKine(options: {
  readonly database: DatabaseFile
  readonly file: string
  /** Told of what is encrypted in it, before the database comes to be; may refuse. */
  readonly onEncrypted: (values: EncryptedValues) => void | Promise<void>
  /** Done when nothing can fail any more but the database's last step. */
  readonly beforeUse?: () => Promise<void>
}): Promise<KineImport> {
  const { database, file, onEncrypted, beforeUse } = options
  using kine = new KineDatabase({ path: file, nativeBinding: database.nativeBinding })
  const bootstrapKeys = new Set<string>()
  const report = await fillDatabase(
    database,
    async (loader) => {
      const encrypted: EncryptedValues = new Map()
      const copy = new Copy(loader)
      for (const row of kine.rows()) {
        const name = row.name.toString('utf8')
        if (name === '' || name === compactName || name.startsWith(gapPrefix)) continue
        if (name === bootstrapPrefix || name.startsWith(`${bootstrapPrefix}/`)) {
          bootstrapKeys.add(name)
          continue
        }
        noteEncrypted(encrypted, { name, value: row.value })
        copy.add(row, name)
      }
      await onEncrypted(encrypted)
      return copy.finish(kine)
    },
    beforeUse,
  )
  return { report, bootstrapKeys: [...bootstrapKeys] }
}

interface State {
  readonly createRevision: number
  readonly version: number
}

class Copy {
  readonly #loader: Loader
  /** The keys that exist. */
  readonly #states = new Map<string, State>()
  readonly #ttls = new Set<number>()
  #last = 0
  /** The newest state whose former one is missing: what is before it cannot be told. */
  #orphan = 0

  constructor(loader: Loader) {
    this.#loader = loader
  }

  add(row: KineRow, name: string): void {
    const before = this.#states.get(name)
    if (row.isDelete) {
      if (before === undefined) return
      this.#states.delete(name)
      const key = name === clientCompactName ? Buffer.from(compactName) : row.name
      this.#append(row, { key, state: { createRevision: 0, version: 0 }, lease: 0, value: noValue })
      return
    }
    const [key, value, version] =
      name === clientCompactName ? clientCompact(row.value) : [row.name, row.value, 2]
    const state = stateOf(row, before, version)
    if (before === undefined && !row.isCreate) this.#orphan = row.id
    this.#states.set(name, state)
    if (row.ttlSeconds > 0) this.#ttls.add(row.ttlSeconds)
    this.#append(row, { key, state, lease: row.ttlSeconds, value })
  }

  /** Returns the compacted revision. */
  finish({ revision, compactedRevision }: KineDatabase): number {
    // As kine's own LeaseGrant does: a lease is its seconds.
    for (const ttl of this.#ttls) {
      this.#loader.lease({ id: BigInt(ttl), ttlSeconds: ttl })
    }
    const compacted = Math.max(compactedRevision, this.#orphan)
    // Where the newest revisions are none of the keys', they must not be given again.
    const whole = this.#last < revision ? revision : compacted
    return whole === 0 ? -1 : whole
  }

  #append({ id }: KineRow, given: { key: Uint8Array; state: State; lease: number; value: Uint8Array }): void {
    const { key, state, lease, value } = given
    this.#loader.version({ revision: id, sub: 0, key, ...state, lease: BigInt(lease), value })
    this.#last = id
  }
}

const noValue = new Uint8Array(0)

function stateOf(row: KineRow, before: State | undefined, unknownVersion: number): State {
  if (before !== undefined) return { createRevision: before.createRevision, version: before.version + 1 }
  if (row.isCreate) return { createRevision: row.id, version: 1 }
  return { createRevision: row.createRevision || row.id, version: unknownVersion }
}

/** What the client put there. Older versions of kine kept the version alone. */
function clientCompact(stored: Buffer): [key: Buffer, value: Buffer, version: number] {
  const bar = stored.indexOf('|')
  const version = Number(stored.toString('latin1', 0, bar < 0 ? stored.length : bar))
  const value = bar < 0 ? Buffer.from('0') : stored.subarray(bar + 1)
  return [Buffer.from(compactName), value, Number.isSafeInteger(version) && version > 0 ? version : 2]
}
