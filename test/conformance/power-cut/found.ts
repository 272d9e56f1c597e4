import { type Fields, type RawClient, fieldsOf, message } from '../../unit/datastore/support.ts'
import { type Acknowledged, type Write, paths, revisionOf, valueOf, writeOf } from './workload.ts'

interface Found {
  readonly key: string
  readonly value: string
  readonly createRevision: number
  readonly modRevision: number
  readonly version: number
}

/** What a server that was started after a power cut has. */
interface State {
  readonly revision: number
  readonly compacted: number
  readonly keys: readonly Found[]
  /** The events of each revision from the compacted one on. */
  readonly events: ReadonlyMap<number, readonly (Found & { isDeleted: boolean })[]>
  readonly leases: ReadonlySet<number>
}

/**
 * What is wrong with a server after a power cut at a position of the recording, one sentence each.
 */
export async function problemsOf(
  client: RawClient,
  acknowledged: Acknowledged,
  position: number,
): Promise<string[]> {
  const state = await readState(client)
  const problems: string[] = []
  const before = <Item extends { position: number }>(items: readonly Item[]): Item[] =>
    items.filter((item) => item.position <= position)
  const newest = Math.max(1, ...before(acknowledged.writes).map(({ revision }) => revision))
  if (newest > state.revision)
    problems.push(`revision ${newest} was acknowledged, the newest is ${state.revision}`)
  for (const { revision } of before(acknowledged.compactions)) {
    if (revision > state.compacted) problems.push(`the compaction at ${revision} is not there`)
  }
  for (const { id } of before(acknowledged.leases)) {
    if (!state.leases.has(id)) problems.push(`lease ${id} is not there`)
  }
  const writes = new Map(before(acknowledged.writes).map(({ write, revision }) => [revision, write]))
  // What was compacted away is known by its acknowledgement, even if that came after the cut.
  for (const { write, revision } of acknowledged.writes)
    if (revision <= state.compacted) writes.set(revision, write)
  problems.push(...historyProblems(state, writes))
  const next = revisionOf(await client.unary(paths.put, message({ 1: 'after', 2: 'x' })))
  if (next !== state.revision + 1) problems.push(`the next write is revision ${next} after ${state.revision}`)
  return problems
}

/** The writes that a server shows: all of its revisions that are not compacted. */
export async function readWrites(client: RawClient): Promise<Map<number, Write>> {
  const writes = new Map<number, Write>()
  for (const [revision, events] of (await readState(client)).events) {
    const write = writeIn(events)
    if (write !== undefined) writes.set(revision, write)
  }
  return writes
}

/** Replays all writes up to the state's revision, and compares the events and the keys with them. */
function historyProblems(state: State, writes: ReadonlyMap<number, Write>): string[] {
  const problems: string[] = []
  const keys = new Map<string, Found>()
  for (let revision = 2; revision <= state.revision; revision++) {
    const events = state.events.get(revision)
    const known = writes.get(revision)
    const write = known ?? (events === undefined ? undefined : writeIn(events))
    if (write === undefined) return [...problems, `revision ${revision} of ${state.revision} is missing`]
    const deleted = write.deletes.filter((key) => keys.has(key))
    if (revision > state.compacted) {
      const wanted = [...write.puts.map((key) => `${key}=${valueOf(write.number)}`), ...deleted]
      const seen = events?.map(({ key, value, isDeleted }) => (isDeleted ? key : `${key}=${value}`)) ?? []
      if (seen.join() !== wanted.join())
        problems.push(`revision ${revision} is not write ${write.number} whole`)
    }
    for (const key of write.puts) {
      const old = keys.get(key)
      keys.set(key, {
        key,
        value: valueOf(write.number),
        createRevision: old?.createRevision ?? revision,
        modRevision: revision,
        version: (old?.version ?? 0) + 1,
      })
    }
    for (const key of deleted) keys.delete(key)
  }
  const wanted = [...keys.values()].sort((one, other) => (one.key < other.key ? -1 : 1))
  if (JSON.stringify(wanted) !== JSON.stringify(state.keys))
    problems.push('the keys are not what was written')
  return problems
}

/** The write that put what a revision's first event has. */
function writeIn(events: readonly { value: string; isDeleted: boolean }[]): Write | undefined {
  const put = events.find(({ isDeleted }) => !isDeleted)
  return put === undefined ? undefined : writeOf(Number.parseInt(put.value, 10))
}

async function readState(client: RawClient): Promise<State> {
  const all = { 1: Buffer.of(0), 2: Buffer.of(0) }
  const response = await client.unary(paths.range, message(all))
  const revision = revisionOf(response)
  const keys = ((fieldsOf(response).get(2) ?? []) as Buffer[]).map(foundIn)
  const leases = fieldsOf(await client.unary(paths.leases, Buffer.alloc(0))).get(2) ?? []
  return {
    revision,
    keys,
    leases: new Set((leases as Buffer[]).map((lease) => Number((fieldsOf(lease).get(1) as bigint[])[0]))),
    ...(await readEvents(client, revision)),
  }
}

/** Watches everything that is not compacted, up to a revision. */
async function readEvents(client: RawClient, revision: number): Promise<Pick<State, 'events' | 'compacted'>> {
  const events = new Map<number, (Found & { isDeleted: boolean })[]>()
  let compacted = 0
  const stream = client.stream(paths.watch)
  const create = (start: number): boolean =>
    stream.write(message({ 1: message({ 1: Buffer.of(0), 2: Buffer.of(0), 3: start }) }))
  create(1)
  for await (const response of stream) {
    const fields = fieldsOf(response as Buffer)
    const [compactRevision] = (fields.get(5) ?? []) as bigint[]
    if (compactRevision !== undefined) {
      compacted = Number(compactRevision)
      create(compacted + 1)
    }
    for (const event of (fields.get(11) ?? []) as Buffer[]) {
      const parts = fieldsOf(event)
      const found = foundIn((parts.get(2) as Buffer[])[0] as Buffer)
      const isDeleted = parts.has(1)
      const list = events.get(found.modRevision)
      if (list === undefined) events.set(found.modRevision, [{ ...found, isDeleted }])
      else list.push({ ...found, isDeleted })
    }
    if (Math.max(compacted, ...events.keys(), 1) >= revision) break
  }
  stream.cancel()
  return { events, compacted }
}

function foundIn(keyValue: Buffer): Found {
  const fields: Fields = fieldsOf(keyValue)
  const number = (field: number): number => Number((fields.get(field) as bigint[] | undefined)?.[0] ?? 0n)
  const text = (field: number): string => ((fields.get(field) as Buffer[] | undefined)?.[0] ?? '').toString()
  return {
    key: text(1),
    value: text(5),
    createRevision: number(2),
    modRevision: number(3),
    version: number(4),
  }
}
