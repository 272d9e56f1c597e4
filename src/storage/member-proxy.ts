import { rmSync } from 'node:fs'
import type { TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import { Relay } from '../base/relay.ts'
import { listenPrivately } from '../base/unix-socket.ts'
import type { Members } from './members.ts'

export interface MemberProxyOptions {
  /** The Unix socket. */
  readonly path: string
  readonly members: Members
  /** Read for every connection: files change. */
  readonly tls: () => TlsIdentity
  readonly log: Logger
}

/** A Unix socket in front of the members of an etcd cluster (base/relay.ts). */
export class MemberProxy {
  readonly #path: string
  readonly #relay: Relay

  constructor({ path, members, tls, log }: MemberProxyOptions) {
    this.#path = path
    this.#relay = new Relay({ backends: members, title: 'member of etcd', tls, log })
  }

  async listen(): Promise<void> {
    await this.#relay.listen((server) => listenPrivately(server, this.#path))
  }

  /** How many are connected, or wait. */
  get clients(): number {
    return this.#relay.clients
  }

  /** Ends all connections. */
  async stop(): Promise<void> {
    if (!this.#relay.isListening) return
    await this.#relay.stop()
    rmSync(this.#path, { force: true })
  }
}
