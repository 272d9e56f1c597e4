import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { hostname, networkInterfaces } from 'node:os'
import { isLinkLocal, isLoopback, parseAddress } from '../base/address.ts'

/** What the defaults depend on; tests give another machine. */
export interface Host {
  readonly nodeName: () => string
  readonly nodeIp: (family: 4 | 6) => Promise<string>
}

export const thisHost: Host = {
  nodeName: () => hostname().toLowerCase(),
  nodeIp: async (family) =>
    (await defaultRouteSource(family)) ?? firstGlobalAddress(family) ?? loopback[family],
}

const loopback = { 4: '127.0.0.1', 6: '::1' }

/** Addresses for documentation (RFC 5737, RFC 3849), which only a default route leads to. */
const faraway = { 4: '203.0.113.1', 6: '2001:db8::1' }

/** The kernel chooses the source address when a UDP socket is connected; nothing is sent. */
async function defaultRouteSource(family: 4 | 6): Promise<string | undefined> {
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6')
  try {
    socket.connect(9, faraway[family])
    await once(socket, 'connect')
    const { address } = socket.address()
    return isUsable(address) ? address : undefined
  } catch {
    // No route: a machine without network runs a cluster of its own.
    return undefined
  } finally {
    socket.close()
  }
}

function firstGlobalAddress(family: 4 | 6): string | undefined {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find((entry) => entry.family === `IPv${family}` && isUsable(entry.address))?.address
}

function isUsable(text: string): boolean {
  const address = parseAddress(text)
  return address !== undefined && !isLoopback(address) && !isLinkLocal(address)
}
