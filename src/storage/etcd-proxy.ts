import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError, errorCode } from '../base/errors.ts'
import type { TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import type { Capability, Component } from '../components/component.ts'
import { Member } from '../datastore/member.ts'
import type { ProcessStatus } from '../supervisor/supervised-process.ts'
import { MemberProxy } from './member-proxy.ts'
import { Members } from './members.ts'
import { ownerKey, ownerValue } from './owner.ts'
import type { StorageOptions } from './storage.ts'

/** For the first words with an etcd that serves, and between two tries of them. */
const claimLimitMs = 10_000
const claimRetryMs = 2_000

export interface EtcdProxyOptions extends StorageOptions {
  /** Of the members. */
  readonly endpoints: readonly string[]
  /** Read for every connection: files change. */
  readonly tls: () => TlsIdentity
  /** Of a server that has a member of its own, for which the daemon cares: where that is spoken to, and what keeps the others known. */
  readonly own?: {
    readonly endpoint: string
    /** Tells of changes until the signal fires. */
    follow(members: Members, signal: AbortSignal): Promise<void>
    /** What is wrong with its membership, if anything is. */
    trouble(): string | undefined
  }
}

/**
 * The members' keeper and the proxy, as a component in this process: kube-apiserver speaks to the same Unix socket as with the embedded
 * datastore. Ready is: a member serves, and it has this cluster. One that is away is waited for, however long that takes.
 */
export class EtcdProxy implements Component {
  readonly name = 'etcd-proxy'
  readonly needs: readonly Capability[]
  readonly provides = ['storage'] as const
  readonly policy = 'fatal'
  readonly readyTimeoutMs = Number.POSITIVE_INFINITY
  readonly stopTimeoutMs = 5_000
  readonly #options: EtcdProxyOptions
  readonly #members: Members
  readonly #proxy: MemberProxy
  readonly #log: Logger
  readonly #end = new AbortController()
  #watching: Promise<void> | undefined
  #starting: Promise<void> | undefined
  #state: ProcessStatus['state'] = 'idle'
  #since = new Date()
  /** Of what was asked of a member that serves. */
  #trouble: string | undefined

  constructor(options: EtcdProxyOptions) {
    const { config, paths, endpoints, tls, own } = options
    const log = options.log.child({ component: this.name })
    // Where there are others, they serve as well.
    this.needs = own !== undefined && endpoints.length === 1 ? ['member'] : []
    this.#options = options
    this.#log = log
    this.#members = new Members({
      ...{ endpoints, key: config.etcdPrefix ?? '', isOwn: own !== undefined, tls, log },
      ...(own && { preferred: own.endpoint }),
    })
    this.#proxy = new MemberProxy({ path: paths.datastoreSocket, members: this.#members, tls, log })
  }

  /** Its own keys tell whose cluster this is. */
  async init(): Promise<void> {
    await this.#options.credentials
  }

  async start(): Promise<void> {
    this.#enter('starting')
    const { signal } = this.#end
    const { own } = this.#options
    this.#watching = Promise.all([this.#members.watch(signal), own?.follow(this.#members, signal)]).then(
      () => {},
    )
    this.#starting = this.#proxy.listen()
    await this.#starting
    if (!this.#end.signal.aborted) this.#enter('running')
  }

  async ready(signal: AbortSignal): Promise<void> {
    const until = AbortSignal.any([signal, this.#end.signal])
    for (;;) {
      const endpoint = await this.#members.whenServing(until)
      try {
        await this.#claim(endpoint, until)
        break
      } catch (error) {
        if (errorCode(error) === 'ETCD_OF_ANOTHER_CLUSTER') throw error
        this.#tell(describeError(error))
      }
      await sleep(claimRetryMs, undefined, { signal: until, ref: false })
    }
    this.#tell(undefined)
    this.#enter('ready')
  }

  async stop(): Promise<void> {
    if (this.#state === 'idle' || this.#state === 'stopped') return
    this.#enter('stopping')
    this.#end.abort()
    await this.#starting?.catch(() => {})
    await Promise.all([this.#proxy.stop(), this.#watching])
    this.#enter('stopped')
  }

  status(): ProcessStatus {
    const { own } = this.#options
    const reasons = [this.#members.trouble(), this.#trouble, own?.trouble()].filter(
      (reason) => reason !== undefined,
    )
    return {
      name: this.name,
      ...(reasons.length > 0 && { reason: reasons.join('; ') }),
      state: this.#state,
      restarts: 0,
      since: this.#since.toISOString(),
      ...(this.#watching && { pid: process.pid }),
    }
  }

  #tell(trouble: string | undefined): void {
    if (trouble !== undefined && trouble !== this.#trouble)
      this.#log.error({ reason: trouble }, 'cannot ask etcd whose cluster it has; it is asked again')
    this.#trouble = trouble
  }

  #enter(state: ProcessStatus['state']): void {
    this.#state = state
    this.#since = new Date()
  }

  /**
   * Writes beside a new cluster's objects whose they are, or throws ETCD_OF_ANOTHER_CLUSTER: with other keys than those that
   * made it, every Secret is unreadable and no token holds, and in an empty etcd all objects would be gone without a word.
   */
  async #claim(endpoint: string, signal: AbortSignal): Promise<void> {
    const { config, paths, pki, tls, own } = this.#options
    const { etcdPrefix: prefix = '', dataDir } = config
    const key = ownerKey(prefix)
    const value = await ownerValue(pki)
    const limited = AbortSignal.any([signal, AbortSignal.timeout(claimLimitMs)])
    using member = new Member({ address: endpoint, tls: tls() })
    const { clusterId } = await member.read(key, { isLocal: false, signal: limited })
    const isNew = !existsSync(paths.clusterFacts)
    const holder = isNew
      ? await member.claim({ key, value, prefix }, limited)
      : await member.get(key, limited)
    if (holder === value) {
      this.#members.clusterId = clusterId
      return
    }
    throw new AppError(`cannot use the etcd at ${endpoint}: ${refusal({ holder, isNew, prefix, dataDir })}`, {
      code: 'ETCD_OF_ANOTHER_CLUSTER',
      endpoint,
      remedy:
        own !== undefined
          ? `put the directory ${paths.memberDir} of this cluster back from a backup`
          : holder === undefined && isNew
            ? `name another --etcd-prefix for a new cluster; where they belong to the keys in ${pki.dir}, say so: etcdctl put ${key} ${value}`
            : `name the --etcd-endpoints and the --etcd-prefix of this cluster, or for a new one another prefix and --data-dir; ${key} says in etcd whose it is, and may be deleted when that cluster is gone`,
    })
  }
}

function refusal(given: {
  holder: string | undefined
  isNew: boolean
  prefix: string
  dataDir: string
}): string {
  const { holder, isNew, prefix, dataDir } = given
  if (holder !== undefined) return `below ${prefix} it has a cluster whose keys are not in ${dataDir}`
  return isNew
    ? `below ${prefix} it has objects, and nothing says whose they are`
    : `below ${prefix} it does not have the cluster of ${dataDir}`
}
