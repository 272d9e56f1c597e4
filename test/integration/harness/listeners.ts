import type { Machine } from './machine.ts'

/** A TCP socket that listens, or a UDP socket that is bound, in the machine's own network. */
export interface Listener {
  readonly protocol: 'tcp' | 'udp'
  readonly isLoopback: boolean
  readonly port: number
}

/** As /proc/net writes states: TCP_LISTEN, and TCP_CLOSE for an unconnected UDP socket. */
const listeningState = { tcp: '0A', udp: '07' } as const

export function listenersOf(machine: Machine): Listener[] {
  const found: Listener[] = []
  for (const protocol of ['tcp', 'udp'] as const) {
    for (const table of [protocol, `${protocol}6`]) {
      for (const line of machine.read(`/proc/1/net/${table}`).split('\n').slice(1)) {
        const [, local, , state] = line.trim().split(/\s+/)
        if (local === undefined || state !== listeningState[protocol]) continue
        const [address = '', port = ''] = local.split(':')
        found.push({ protocol, isLoopback: isLoopback(address), port: Number.parseInt(port, 16) })
      }
    }
  }
  return found
}

/** Addresses are in hex, each 32-bit word in the byte order of the machine, little-endian here. */
function isLoopback(address: string): boolean {
  if (address.length === 8) return address.endsWith('7F')
  const mapped = /^0000000000000000FFFF0000(.{8})$/.exec(address)?.[1]
  return mapped === undefined ? address === '00000000000000000000000001000000' : mapped.endsWith('7F')
}
