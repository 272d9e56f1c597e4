import type { History, Listing, Read, WatchEvent, WatchStep, Write } from './history.ts'

/** More of them say nothing new. */
const shownLimit = 20

/**
 * What must not be, whatever failed: an acknowledged write that is lost, a refused one that happened, a read that is older than what
 * was known when it began, and a watch that leaves out, repeats or invents an event. Empty: all is well.
 */
export function findProblems(history: History): string[] {
  const problems = [
    ...problemsOfReads(history),
    ...history.watches.flatMap((steps, index) =>
      problemsOfWatch(history, steps).map((problem) => `watch ${index}: ${problem}`),
    ),
  ]
  const hidden = problems.length - shownLimit
  return hidden > 0 ? [...problems.slice(0, shownLimit), `and ${hidden} more`] : problems
}

/** How often watches had to begin anew with a list. */
export function relistsOf(history: History): number {
  return history.watches.flat().filter(({ type }) => type === 'LISTED').length - history.watches.length
}

// ---- reads ----

/** What is certain of a name: it has at least this value, or it is gone for good. */
interface Known {
  readonly value: number
  readonly isGone: boolean
}

/** Goes through all reads in the order of their beginnings, with what was known by then. */
function problemsOfReads(history: History): string[] {
  const attempts = Map.groupBy(history.writes, ({ name }) => name)
  const ended = [...history.writes.filter(({ outcome }) => outcome === 'done'), ...history.reads].toSorted(
    (a, b) => a.endMs - b.endMs,
  )
  const known = new Map<string, Known>()
  /** Those of `known` that were there, and that nobody has seen gone. */
  const alive = new Set<string>()
  const learn = (name: string, { value, isGone }: Known) => {
    const before = known.get(name)
    const now = {
      value: Math.max(value, before?.value ?? 0),
      isGone: isGone || before?.isGone === true,
    }
    known.set(name, now)
    if (now.isGone) alive.delete(name)
    else alive.add(name)
  }
  /** What reads did not have that was there when they began. */
  const missedBy = new Map<Read, readonly string[]>()
  let newest = 0
  let next = 0
  return history.reads
    .toSorted((a, b) => a.startMs - b.startMs)
    .flatMap((read) => {
      for (let done = ended[next]; done !== undefined && done.endMs < read.startMs; done = ended[++next]) {
        newest = Math.max(newest, done.version ?? 0)
        if ('kind' in done) learn(done.name, { value: done.value, isGone: done.kind === 'delete' })
        else {
          for (const [name, value] of Object.entries(done.objects)) learn(name, { value, isGone: false })
          for (const name of missedBy.get(done) ?? []) learn(name, { value: 0, isGone: true })
        }
      }
      const wanted = read.name === undefined ? [...alive] : [read.name].filter((name) => alive.has(name))
      const missed = wanted.filter((name) => read.objects[name] === undefined)
      missedBy.set(read, missed)
      return problemsOfRead(read, { known, missed, newest, attempts })
    })
}

function problemsOfRead(
  read: Read,
  given: {
    known: ReadonlyMap<string, Known>
    missed: readonly string[]
    newest: number
    attempts: ReadonlyMap<string, readonly Write[]>
  },
): string[] {
  const { known, missed, newest, attempts } = given
  const problems: string[] = []
  const what = `a read from ${read.server} at ${time(read.startMs)}`
  if (read.version !== undefined && read.version < newest)
    problems.push(`${what} is of version ${read.version}, and ${newest} was known before`)
  for (const [name, value] of Object.entries(read.objects)) {
    const before = known.get(name)
    const write = attempts.get(name)?.find((one) => one.value === value && one.kind !== 'delete')
    if (write === undefined || write.startMs > read.endMs)
      problems.push(`${what} has ${name} with ${value}, which nobody has written`)
    else if (write.outcome === 'refused')
      problems.push(`${what} has ${name} with ${value}, which was refused (${write.answer})`)
    if (before?.isGone === true) problems.push(`${what} has ${name}, which was deleted before`)
    else if (before !== undefined && value < before.value)
      problems.push(`${what} has ${name} with ${value}, and ${before.value} was known before`)
  }
  for (const name of missed) {
    const deletions = (attempts.get(name) ?? []).filter(
      ({ kind, outcome, startMs }) => kind === 'delete' && outcome !== 'refused' && startMs <= read.endMs,
    )
    if (deletions.length === 0)
      problems.push(`${what} does not have ${name}, which was there with ${known.get(name)?.value}`)
  }
  return problems
}

// ---- watches ----

/** What a list has passed over is left out: a server may have to answer that it does not keep it any more. */
function problemsOfWatch(history: History, steps: readonly WatchStep[]): string[] {
  const problems: string[] = []
  const objects = new Map<string, number>()
  const events = new Map<number, WatchEvent>()
  const holes: { from: number; to: number }[] = []
  const attempts = new Map(
    history.writes.filter(({ kind }) => kind !== 'delete').map((write) => [write.value, write]),
  )
  const lists = history.reads
    .filter(({ version }) => version !== undefined)
    .toSorted((a, b) => (a.version ?? 0) - (b.version ?? 0))
  let nextList = 0
  let last = 0
  /** The lists of versions before this one are compared with what the watch has told so far. */
  const compareUntil = (version: number) => {
    for (; (lists[nextList]?.version ?? version) < version; nextList++) {
      const list = lists[nextList]
      if (list === undefined || isInHole(holes, list.version ?? 0)) continue
      const difference = differenceOf(objects, list.objects)
      if (difference !== undefined)
        problems.push(`a list from ${list.server} of version ${list.version} has ${difference}`)
    }
  }
  for (const step of steps) {
    if (step.type === 'LISTED') {
      compareUntil(last + 1)
      if (step.version < last) problems.push(`a list of version ${step.version} came after ${last}`)
      holes.push({ from: last + 1, to: step.version })
      replace(objects, step)
      last = Math.max(last, step.version)
      continue
    }
    if (step.version <= last) {
      problems.push(`${describeEvent(step)} came after ${last}: twice, or out of order`)
      continue
    }
    compareUntil(step.version)
    problems.push(...problemsOfEvent(step, objects, attempts))
    if (step.type === 'DELETED') objects.delete(step.name)
    else objects.set(step.name, step.value)
    events.set(step.version, step)
    last = step.version
  }
  const reached = steps.some((step) =>
    step.type === 'LISTED' ? step.objects[history.last] !== undefined : step.name === history.last,
  )
  if (!reached) problems.push(`it ended at version ${last}, before the last write`)
  return [...problems, ...missedBy({ history, events, holes, last })]
}

function problemsOfEvent(
  event: WatchEvent,
  objects: ReadonlyMap<string, number>,
  attempts: ReadonlyMap<number, Write>,
): string[] {
  const what = describeEvent(event)
  const before = objects.get(event.name)
  const write = attempts.get(event.value)
  const problems: string[] = []
  if (write === undefined || write.name !== event.name)
    problems.push(`${what} has a value that nobody has written`)
  else if (write.outcome === 'refused') problems.push(`${what} was refused (${write.answer})`)
  else if (write.outcome === 'done' && event.type !== 'DELETED' && write.version !== event.version)
    problems.push(`${what} was acknowledged as ${write.version}`)
  if (event.type === 'ADDED' && before !== undefined) problems.push(`${what}, and it was there already`)
  if (event.type !== 'ADDED' && before === undefined) problems.push(`${what}, and it was not there`)
  if (event.type === 'MODIFIED' && before !== undefined && before >= event.value)
    problems.push(`${what} came after ${before}`)
  if (event.type === 'DELETED' && before !== undefined && before !== event.value)
    problems.push(`${what}, and it had ${before}`)
  return problems
}

/** Acknowledged writes of which this watch has to have told, and has not. */
function missedBy(given: {
  history: History
  events: ReadonlyMap<number, WatchEvent>
  holes: readonly { from: number; to: number }[]
  last: number
}): string[] {
  const { history, events, holes, last } = given
  const done = history.writes.filter(({ outcome }) => outcome === 'done')
  const deleted = new Set(
    [...events.values()].filter(({ type }) => type === 'DELETED').map(({ name }) => name),
  )
  // A deletion is acknowledged without its version. A watch that had to list may have passed over it.
  const hasPassed = holes.length > 1
  return done.flatMap((write) => {
    if (write.kind === 'delete')
      return deleted.has(write.name) || hasPassed ? [] : [`the deletion of ${write.name} is missing`]
    const { version = 0 } = write
    if (version > last || isInHole(holes, version)) return []
    return events.has(version)
      ? []
      : [`the ${write.kind} of ${write.name} with ${write.value} (version ${version}) is missing`]
  })
}

/** Of what is told by a list, and not step by step. The end of a hole is the list itself, and is known. */
function isInHole(holes: readonly { from: number; to: number }[], version: number): boolean {
  return holes.some(({ from, to }) => version >= from && version <= to)
}

function replace(objects: Map<string, number>, { objects: listed }: Listing): void {
  objects.clear()
  for (const [name, value] of Object.entries(listed)) objects.set(name, value)
}

function differenceOf(
  told: ReadonlyMap<string, number>,
  listed: Readonly<Record<string, number>>,
): string | undefined {
  for (const name of new Set([...told.keys(), ...Object.keys(listed)])) {
    const [here, there] = [told.get(name), listed[name]]
    if (here !== there) return `${name} with ${there ?? 'nothing'}, and the watch said ${here ?? 'nothing'}`
  }
  return undefined
}

function describeEvent({ type, name, value, version }: WatchEvent): string {
  return `${type} ${name} with ${value} (version ${version})`
}

function time(ms: number): string {
  return new Date(ms).toISOString().slice(11, 23)
}
