import type { Server, Socket } from 'node:net'

interface Options {
  readonly limit: number
  /** Called when somebody has to go. */
  readonly onFull: () => void
}

/**
 * Bounds the connections of a server. When there is one too many, the oldest of those goes that have not been proven to
 * be clients, so that nobody is kept out by connections that say nothing; where all have been, the new one goes.
 */
export class ConnectionLimit {
  /** All that were accepted: with TLS, the sockets below. */
  readonly sockets = new Set<Socket>()
  readonly #unproven = new Map<string | Socket, Socket>()

  constructor(server: Server, { limit, onFull }: Options) {
    server.on('connection', (socket: Socket) => {
      const key = keyOf(socket)
      this.sockets.add(socket)
      this.#unproven.set(key, socket)
      socket.on('close', () => {
        this.sockets.delete(socket)
        if (this.#unproven.get(key) === socket) this.#unproven.delete(key)
      })
      if (this.sockets.size <= limit) return
      onFull()
      const [oldest = socket] = this.#unproven.values()
      oldest.destroy()
    })
  }

  /** Whoever is at its other end knows what is served here. */
  prove(socket: Socket): void {
    this.#unproven.delete(keyOf(socket))
  }
}

/** A TLS socket and the one below it have the same; those of Unix have none. */
function keyOf(socket: Socket): string | Socket {
  const { localAddress, remoteAddress, remotePort } = socket
  return remotePort === undefined ? socket : `${localAddress} ${remoteAddress} ${remotePort}`
}
