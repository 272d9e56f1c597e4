import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { AppError, errorCode } from '../base/errors.ts'
import { privateDirectoryMode, privateMode, writeFileAtomicallySync } from '../base/files.ts'
import { readBootId, readStat } from '../base/proc.ts'

/** What is kept of a running process, so that the daemon's successor recognizes it. */
interface ProcessRecord {
  readonly name: string
  readonly pid: number
  readonly startTicks: number
  readonly bootId: string
}

/*
 * The environment of each process says whose it is. It is inherited by what the process starts in
 * turn, of which some must outlive it (containerd's shims keep the pods running), so a mark alone
 * proves nothing: see leftovers.ts.
 */
export const componentMark = 'K8S_COMPONENT'
export const recordDirMark = 'K8S_RECORD_DIR'
/** pid:startTicks of the daemon. */
export const supervisorMark = 'K8S_SUPERVISOR'

export function processMarks({
  name,
  recordDir,
}: {
  name: string
  recordDir: string
}): Record<string, string> {
  return {
    [componentMark]: name,
    [recordDirMark]: resolve(recordDir),
    [supervisorMark]: `${process.pid}:${readStat(process.pid)?.startTicks}`,
  }
}

/** Atomic: a record is there as a whole or not at all. */
export function writeRecord(recordDir: string, { name, pid }: { name: string; pid: number }): void {
  const startTicks = readStat(pid)?.startTicks
  // It has ended already; its exit is on the way.
  if (startTicks === undefined) return
  const record: ProcessRecord = { name, pid, startTicks, bootId: readBootId() }
  mkdirSync(recordDir, { recursive: true, mode: privateDirectoryMode })
  const text = `${JSON.stringify(record)}\n`
  // After a power cut no process is left that it could name.
  writeFileAtomicallySync(recordPath(recordDir, name), text, { mode: privateMode, durable: 'nothing' })
}

export function removeRecord(recordDir: string, name: string): void {
  rmSync(recordPath(recordDir, name), { force: true })
}

/** The record of that name; undefined when there is none, or none that can be understood. */
export function readRecord(recordDir: string, name: string): ProcessRecord | undefined {
  try {
    return parseRecord(readFileSync(recordPath(recordDir, name), 'utf8'))
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return undefined
    throw cannotRead(recordPath(recordDir, name), cause)
  }
}

export function listRecordedNames(recordDir: string): string[] {
  try {
    return readdirSync(recordDir).flatMap((file) => /^(.+)\.json$/.exec(file)?.[1] ?? [])
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return []
    throw cannotRead(recordDir, cause)
  }
}

function cannotRead(path: string, cause: unknown): AppError {
  return new AppError(`cannot read ${path}`, { code: 'PROCESS_RECORD', path }, { cause })
}

function recordPath(recordDir: string, name: string): string {
  return join(recordDir, `${name}.json`)
}

/** A file that a full disk left empty or that another hand wrote names no process. */
function parseRecord(text: string): ProcessRecord | undefined {
  try {
    const { name, pid, startTicks, bootId } = JSON.parse(text) as Partial<ProcessRecord>
    const valid =
      typeof name === 'string' &&
      Number.isSafeInteger(pid) &&
      pid! > 1 &&
      Number.isSafeInteger(startTicks) &&
      typeof bootId === 'string'
    return valid ? { name, pid: pid!, startTicks: startTicks!, bootId } : undefined
  } catch {
    return undefined
  }
}
