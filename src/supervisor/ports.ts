import { readdir, readFile, readlink } from 'node:fs/promises'
import { type Listener, listPids, parseListeners, readCommand } from '../base/proc.ts'

/** Who listens on a TCP port. */
export interface PortHolder {
  readonly port: number
  /** The address that it listens on: 0.0.0.0, 127.0.0.1, ::, ... */
  readonly address: string
  readonly userId: number
  /** Missing when the process is another user's or lives in another pid namespace. */
  readonly pid?: number
  readonly command?: string
}

/** The listeners on these ports in this network namespace, each process once a port. */
export async function findPortHolders(ports: readonly number[]): Promise<PortHolder[]> {
  const tables = await Promise.all([readListeners('tcp'), readListeners('tcp6')])
  const listeners = tables.flat().filter(({ port }) => ports.includes(port))
  if (listeners.length === 0) return []
  const pids = await findSocketOwners(new Set(listeners.map(({ inode }) => inode)))
  const holders = new Map<string, PortHolder>()
  for (const { inode, ...listener } of listeners) {
    const pid = pids.get(inode)
    const command = pid === undefined ? undefined : readCommand(pid)
    const holder = {
      ...listener,
      ...(pid !== undefined && { pid }),
      ...(command !== undefined && { command }),
    }
    holders.set(`${listener.port} ${pid ?? listener.address}`, holder)
  }
  return [...holders.values()]
}

/** The holders of those of these ports that others have, and this process has not. */
export async function findStrangers(ports: readonly number[], pid: number): Promise<PortHolder[]> {
  const byPort = Map.groupBy(await findPortHolders(ports), ({ port }) => port)
  return [...byPort.values()].filter((holders) => holders.every((holder) => holder.pid !== pid)).flat()
}

/** "port 6443 is held by process 4711 (/usr/bin/haproxy)" */
export function describePortHolder({ port, pid, command, userId }: PortHolder): string {
  const holder =
    pid === undefined
      ? `a process of user ${userId} that is not visible here`
      : `process ${pid} (${command ?? 'it has just ended'})`
  return `port ${port} is held by ${holder}`
}

/** The ports of lines such as Go's "listen tcp 0.0.0.0:6443: bind: address already in use". */
export function portsInUse(lines: readonly string[]): number[] {
  const ports = lines.flatMap((line) =>
    [...line.matchAll(/:(\d{1,5})\b[^:]*: (?:bind: )?address already in use|EADDRINUSE.*:(\d{1,5})\b/gi)].map(
      (match) => Number(match[1] ?? match[2]),
    ),
  )
  return [...new Set(ports)]
}

/** Whether a line says that some address is taken, with its port or without. */
export function saysInUse(line: string): boolean {
  return /address already in use|EADDRINUSE/i.test(line)
}

async function readListeners(table: 'tcp' | 'tcp6'): Promise<Listener[]> {
  // A kernel without IPv6 has no tcp6.
  return parseListeners(await readFile(`/proc/net/${table}`, 'utf8').catch(() => ''))
}

/** Which process has each socket open. Reads the descriptors of all processes: for failures only. */
async function findSocketOwners(inodes: ReadonlySet<string>): Promise<Map<string, number>> {
  const owners = new Map<string, number>()
  for (const pid of listPids()) {
    if (owners.size === inodes.size) break
    const directory = `/proc/${pid}/fd`
    for (const descriptor of await readdir(directory).catch(() => [])) {
      const target = await readlink(`${directory}/${descriptor}`).catch(() => '')
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1]
      if (inode !== undefined && inodes.has(inode) && !owners.has(inode)) owners.set(inode, pid)
    }
  }
  return owners
}
