import { once } from 'node:events'
import { type Socket, connect } from 'node:net'
import { onTestFinished } from 'vitest'

/** Connections that say nothing. */
export class Crowd {
  readonly #sockets: Socket[] = []
  closed = 0

  constructor() {
    onTestFinished(() => this.leave())
  }

  async connect(url: string, count: number): Promise<void> {
    const { hostname, port } = new URL(url)
    for (let at = 0; at < count; at++) {
      const socket = connect(Number(port), hostname)
      socket.on('error', () => undefined)
      socket.on('close', () => this.closed++)
      socket.resume()
      this.#sockets.push(socket)
      await once(socket, 'connect')
    }
  }

  leave(): void {
    for (const socket of this.#sockets) socket.destroy()
  }
}
