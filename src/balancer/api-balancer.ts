import { once } from 'node:events'
import type { Server } from 'node:net'
import { AppError, errorCode } from '../base/errors.ts'
import type { TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import { Relay } from '../base/relay.ts'
import type { Component, ComponentName } from '../components/component.ts'
import { ports } from '../config/ports.ts'
import type { ProcessStatus } from '../supervisor/supervised-process.ts'
import { followServers } from './server-list.ts'
import type { KnownServers, Servers } from './servers.ts'

const host = '127.0.0.1'

/** Where what runs on this machine finds the API. */
export const balancerUrl = `https://${host}:${ports.apiBalancer.number}`

export interface ApiBalancerOptions {
  readonly servers: Servers
  /** Who asks for the list of servers. */
  readonly identity: () => Promise<TlsIdentity>
  /** Told after each list that the cluster gives. */
  readonly remember: (known: KnownServers) => void
  readonly log: Logger
  /** What differs from the port of the daemon. */
  readonly port?: number
}

/**
 * A port on loopback in front of the API servers of a cluster, as a component in this process. TLS goes through it: who connects checks for
 * himself whom he speaks to. It is ready when it listens: while no server serves, what needs the API waits for that.
 */
export class ApiBalancer implements Component {
  readonly name: ComponentName = 'api-balancer'
  readonly needs = []
  readonly provides = ['api'] as const
  readonly policy = 'degraded'
  readonly readyTimeoutMs = 10_000
  readonly stopTimeoutMs = 5_000
  readonly #options: ApiBalancerOptions
  readonly #relay: Relay
  readonly #log: Logger
  readonly #end = new AbortController()
  #work: Promise<unknown> | undefined
  #state: ProcessStatus['state'] = 'idle'
  #since = new Date()

  constructor(options: ApiBalancerOptions) {
    this.#options = options
    this.#log = options.log.child({ component: this.name })
    this.#relay = new Relay({ backends: options.servers, title: 'server', log: this.#log })
  }

  async init(): Promise<void> {}

  async start(): Promise<void> {
    const { servers, identity, remember, port = ports.apiBalancer.number } = this.#options
    this.#enter('starting')
    await this.#relay.listen((server) => listenOn(server, port))
    const { signal } = this.#end
    const onList = (endpoints: readonly string[]) => {
      if (endpoints.length === 0) return
      servers.list(endpoints)
      remember(servers.known)
    }
    this.#work ??= Promise.all([
      servers.watch(signal),
      followServers({
        access: { server: `https://${host}:${port}`, identity },
        onList,
        log: this.#log,
        signal,
      }),
    ])
    this.#enter('running')
  }

  async ready(): Promise<void> {
    this.#enter('ready')
  }

  async stop(): Promise<void> {
    if (this.#state === 'idle' || this.#state === 'stopped') return
    this.#enter('stopping')
    this.#end.abort()
    await Promise.all([this.#relay.stop(), this.#work])
    this.#enter('stopped')
  }

  status(): ProcessStatus {
    const reason = this.#state === 'ready' ? this.#options.servers.trouble() : undefined
    return {
      name: this.name,
      ...(reason !== undefined && { reason }),
      state: this.#state,
      restarts: 0,
      since: this.#since.toISOString(),
      ...(this.#work && { pid: process.pid }),
    }
  }

  #enter(state: ProcessStatus['state']): void {
    this.#state = state
    this.#since = new Date()
  }
}

async function listenOn(server: Server, port: number): Promise<void> {
  try {
    server.listen(port, host)
    await once(server, 'listening')
  } catch (cause) {
    throw new AppError(
      `cannot listen on ${host}:${port}`,
      {
        code: errorCode(cause) ?? 'LISTEN',
        remedy: `end what listens there: ss -ltnp 'sport = :${port}' names it`,
      },
      { cause },
    )
  }
}
