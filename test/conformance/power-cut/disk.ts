import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** What recorder.c writes: enum operation. */
const operations = {
  create: 1,
  makeDirectory: 2,
  write: 3,
  truncate: 4,
  sync: 5,
  unlink: 6,
  rename: 7,
} as const
const recordHeadBytes = 24

/** What a disk writes as a whole or not at all. */
const sectorBytes = 512

export interface Recorded {
  readonly operation: number
  /** Below the recorded directory; "." is the directory itself. */
  readonly path: string
  readonly data: Buffer
  readonly offset: number
  /** The size of the log up to here. */
  readonly end: number
}

export function readRecording(path: string): Recorded[] {
  const log = readFileSync(path)
  const records: Recorded[] = []
  for (let at = 0; at < log.length; ) {
    const pathEnd = at + recordHeadBytes + log.readUInt32LE(at + 4)
    const end = pathEnd + Number(log.readBigUInt64LE(at + 8))
    records.push({
      operation: log.readUInt32LE(at),
      path: log.toString('utf8', at + recordHeadBytes, pathEnd),
      data: log.subarray(pathEnd, end),
      offset: Number(log.readBigInt64LE(at + 16)),
      end,
    })
    at = end
  }
  return records
}

/** What happens to writes that were not synced when the power is cut. */
export const fates = ['lost', 'kept', 'prefix', 'sectors'] as const
export type Fate = (typeof fates)[number]

type Write = { readonly kind: 'write'; readonly at: number; readonly data: Buffer }
type Change = Write | { readonly kind: 'truncate'; readonly length: number }

/** The bytes of a file, changed in place. */
class Content {
  #buffer: Buffer
  #length: number

  constructor(bytes: Buffer = Buffer.alloc(0)) {
    this.#buffer = bytes
    this.#length = bytes.length
  }

  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }

  copy(): Content {
    return new Content(Buffer.from(this.bytes))
  }

  apply(change: Change): void {
    if (change.kind === 'truncate') return this.#resize(change.length)
    const end = change.at + change.data.length
    if (end > this.#length) this.#resize(end)
    change.data.copy(this.#buffer, change.at)
  }

  #resize(length: number): void {
    if (length > this.#buffer.length) {
      const grown = Buffer.alloc(Math.max(length, this.#buffer.length * 2))
      this.bytes.copy(grown)
      this.#buffer = grown
    } else if (length > this.#length) {
      this.#buffer.fill(0, this.#length, length)
    }
    this.#length = length
  }
}

class File {
  readonly content = new Content()
  pending: Change[] = []

  sync(): void {
    for (const change of this.pending) this.content.apply(change)
    this.pending = []
  }
}

type NameChange =
  | { readonly kind: 'add'; readonly path: string; readonly entry: File | 'directory' }
  | { readonly kind: 'remove'; readonly path: string }

/**
 * What is surely on a disk, and what may be, after part of a recording. Content is durable with an fsync
 * of its file; names are with one of their directory, which keeps their order.
 */
export class Disk {
  readonly #now = new Map<string, File | 'directory'>()
  readonly #durable = new Map<string, File | 'directory'>()
  readonly #pendingNames = new Map<string, NameChange[]>()

  apply({ operation, path, data, offset }: Recorded): void {
    switch (operation) {
      case operations.create:
        return this.#name({ kind: 'add', path, entry: new File() })
      case operations.makeDirectory:
        return this.#name({ kind: 'add', path, entry: 'directory' })
      case operations.unlink:
        return this.#name({ kind: 'remove', path })
      case operations.rename: {
        const entry = this.#now.get(path)
        if (entry === undefined) throw new Error(`rename of ${path}, which is not there`)
        this.#name({ kind: 'add', path: data.toString(), entry })
        return this.#name({ kind: 'remove', path })
      }
      case operations.write:
        this.#file(path).pending.push({ kind: 'write', at: offset, data })
        return
      case operations.truncate:
        this.#file(path).pending.push({ kind: 'truncate', length: offset })
        return
      case operations.sync:
        return this.#sync(path)
      default:
        throw new Error(`unknown operation ${operation} in the recording`)
    }
  }

  /** Writes to `directory` what a start after a power cut could find. */
  writeTo(directory: string, fate: Fate, random: () => number): void {
    const names = new Map(this.#durable)
    for (const changes of this.#pendingNames.values()) {
      for (const change of changes.slice(0, survivors(changes.length, fate, random))) applyName(names, change)
    }
    const exists = (path: string): boolean => path === '.' || (names.has(path) && exists(dirname(path)))
    for (const [path, entry] of [...names].sort(([one], [other]) => one.length - other.length)) {
      if (!exists(path)) continue
      const target = join(directory, path)
      if (entry === 'directory') mkdirSync(target)
      else writeFileSync(target, contentAfter(entry, fate, random), { mode: 0o600 })
    }
  }

  #file(path: string): File {
    const file = this.#now.get(path)
    if (!(file instanceof File)) throw new Error(`${path} is used but was never created`)
    return file
  }

  #name(change: NameChange): void {
    applyName(this.#now, change)
    const parent = dirname(change.path)
    const pending = this.#pendingNames.get(parent)
    if (pending === undefined) this.#pendingNames.set(parent, [change])
    else pending.push(change)
  }

  #sync(path: string): void {
    const entry = this.#now.get(path)
    if (entry instanceof File) return entry.sync()
    for (const change of this.#pendingNames.get(path) ?? []) applyName(this.#durable, change)
    this.#pendingNames.delete(path)
  }
}

function applyName(names: Map<string, File | 'directory'>, change: NameChange): void {
  if (change.kind === 'add') names.set(change.path, change.entry)
  else names.delete(change.path)
}

/** How many of a directory's changes are on the disk. */
function survivors(count: number, fate: Fate, random: () => number): number {
  if (fate === 'lost') return 0
  return fate === 'kept' ? count : Math.floor(random() * (count + 1))
}

function contentAfter({ content, pending }: File, fate: Fate, random: () => number): Buffer {
  const after = content.copy()
  if (fate === 'sectors') {
    for (const change of pending) {
      const parts = change.kind === 'write' ? sectorsOf(change) : [change]
      for (const part of parts) if (random() < 0.5) after.apply(part)
    }
    return after.bytes
  }
  const kept = survivors(pending.length, fate, random)
  for (const change of pending.slice(0, kept)) after.apply(change)
  const torn = fate === 'prefix' ? pending[kept] : undefined
  if (torn?.kind !== 'write') return after.bytes
  const sectors = sectorsOf(torn)
  for (const sector of sectors.slice(0, Math.floor(random() * sectors.length))) after.apply(sector)
  return after.bytes
}

/** The parts of a write that lie in sectors of their own. */
function sectorsOf({ at, data }: Write): Write[] {
  const parts: Write[] = []
  for (let start = 0; start < data.length; ) {
    const end = Math.min(data.length, start + sectorBytes - ((at + start) % sectorBytes))
    parts.push({ kind: 'write', at: at + start, data: data.subarray(start, end) })
    start = end
  }
  return parts
}
