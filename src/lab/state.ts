import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { AppError, errorCode } from '../base/errors.ts'
import {
  preparePrivateDirectory,
  privateMode,
  readFileIfPresent,
  writeFileAtomically,
} from '../base/files.ts'
import { isAlive, readStat } from '../base/proc.ts'

/*
 * What is in the directory of labs:
 *
 *    NAME/lab.json       what the lab is to consist of, written first
 *    NAME/kubeconfig     for its user
 *    NAME/NODE/          the machine's disk: its /var/lib is lib/, its /var/log is log/
 *    NAME/NODE.keeper    the process that keeps the machine, written by itself before it begins: what a crash leaves is found by it
 *    NAME/NODE.log       what that process says
 *    NAME/network.*      the same of the network
 */

/** A process that keeps namespaces: with its start it is one for good. */
export interface Keeper {
  readonly pid: number
  /** In clock ticks after the boot. */
  readonly startTicks: number
}

export interface LabNode {
  /** The host name, and so the Node's: NAME-server1. */
  readonly name: string
  readonly role: 'server' | 'agent'
  /** The last part of its address. */
  readonly host: number
  /** Its pid 1, as the host numbers it. */
  readonly init?: Keeper
  readonly isCut?: boolean
}

export interface LabState {
  readonly name: string
  /** 10.89.0 */
  readonly subnet: string
  /** What is in the network's namespace. */
  readonly lan?: Keeper
  readonly nodes: readonly LabNode[]
}

/** Where one lab keeps what it has. */
export function labPaths(labDir: string, name: string) {
  const dir = join(labDir, name)
  return {
    dir,
    record: join(dir, 'lab.json'),
    kubeconfig: join(dir, 'kubeconfig'),
    network: join(dir, 'network'),
    machine: (node: string) => join(dir, node),
  }
}

/** In the order of their names; those whose record cannot be read are passed over. */
export async function readLabs(labDir: string): Promise<LabState[]> {
  const found = await Promise.all(namesIn(labDir).map((name) => findLab(labDir, name)))
  return found.filter((lab) => lab !== undefined)
}

/** undefined: there is none of that name. */
export async function findLab(labDir: string, name: string): Promise<LabState | undefined> {
  const text = await readFileIfPresent(labPaths(labDir, name).record)
  return text === undefined ? undefined : (JSON.parse(text) as LabState)
}

export async function requireLab(labDir: string, name: string): Promise<LabState> {
  const lab = await findLab(labDir, name)
  if (lab !== undefined) return lab
  const names = namesIn(labDir)
  throw new AppError(
    `cannot find the lab ${name}: ${names.length === 0 ? 'there is none' : `there are ${names.join(', ')}`}`,
    {
      code: 'NO_LAB',
      remedy: 'make one with k8s lab create',
    },
  )
}

/** By the name of the node, which no two labs share. */
export async function requireNode(
  labDir: string,
  nodeName: string,
): Promise<{ lab: LabState; node: LabNode }> {
  const labs = await readLabs(labDir)
  for (const lab of labs) {
    const node = lab.nodes.find(({ name }) => name === nodeName)
    if (node !== undefined) return { lab, node }
  }
  const names = labs.flatMap(({ nodes }) => nodes.map(({ name }) => name))
  throw new AppError(
    `cannot find the node ${nodeName}: ${names.length === 0 ? 'there is no lab' : `there are ${names.join(', ')}`}`,
    { code: 'NO_LAB_NODE', remedy: 'see k8s lab ls' },
  )
}

export async function writeLab(labDir: string, lab: LabState): Promise<void> {
  const { dir, record } = labPaths(labDir, lab.name)
  await preparePrivateDirectory(dir)
  await writeFileAtomically(record, `${JSON.stringify(lab, undefined, 2)}\n`, { mode: privateMode })
}

export function keeperOf(pid: number): Keeper {
  const stat = readStat(pid)
  if (stat === undefined)
    throw new AppError(`cannot find the process ${pid}: it has ended`, { code: 'LAB_KEEPER' })
  return { pid, startTicks: stat.startTicks }
}

/** What keeps the machine or the network at `place`. */
export async function readKeeper(place: string): Promise<Keeper | undefined> {
  const [pid, startTicks] = ((await readFileIfPresent(keeperFile(place))) ?? '').split(' ').map(Number)
  return pid && startTicks ? { pid, startTicks } : undefined
}

export function keeperFile(place: string): string {
  return `${place}.keeper`
}

export function logFile(place: string): string {
  return `${place}.log`
}

/** Not after a reboot, nor when somebody has killed it. */
export function isThere(keeper: Keeper | undefined): keeper is Keeper {
  return keeper !== undefined && isAlive(keeper)
}

function namesIn(labDir: string): string[] {
  try {
    return readdirSync(labDir).toSorted()
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  }
}
