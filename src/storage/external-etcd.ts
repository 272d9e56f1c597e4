import { createHash, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, assert, describeError, errorCode } from '../base/errors.ts'
import type { TlsIdentity } from '../base/http.ts'
import { readTlsIdentity } from '../base/tls-files.ts'
import type { Component } from '../components/component.ts'
import { Member } from '../datastore/member.ts'
import type { ProcessStatus } from '../supervisor/supervised-process.ts'
import { MemberProxy } from './member-proxy.ts'
import { Members } from './members.ts'
import type { Storage, StorageOptions } from './storage.ts'

/** For the first words with an etcd that serves, and between two tries of them. */
const claimLimitMs = 10_000
const claimRetryMs = 2_000

/**
 * An etcd that others run: the daemon stands in front of its members (member-proxy.ts), and kube-apiserver speaks to the same Unix socket as
 * with the embedded datastore. One that is away is waited for, however long that takes.
 */
export function externalEtcd(options: StorageOptions): Storage {
  const { config, paths } = options
  const { etcdPrefix } = config
  assert(etcdPrefix !== undefined, 'a server of another mode has no such storage')
  return {
    components: [new EtcdProxy(options)],
    apiserverFlags: { 'etcd-servers': `unix://${paths.datastoreSocket}`, 'etcd-prefix': etcdPrefix },
    mayBeAway: true,
    failed: new Promise(() => {}),
    ping: async () => {},
  }
}

/** The members' keeper and the proxy, as a component in this process. Ready is: a member serves, and it has this cluster. */
class EtcdProxy implements Component {
  readonly name = 'etcd-proxy'
  readonly needs = []
  readonly provides = ['storage'] as const
  readonly policy = 'fatal'
  readonly readyTimeoutMs = Number.POSITIVE_INFINITY
  readonly stopTimeoutMs = 5_000
  readonly #options: StorageOptions
  readonly #members: Members
  readonly #proxy: MemberProxy
  readonly #end = new AbortController()
  #watching: Promise<void> | undefined
  #state: ProcessStatus['state'] = 'idle'
  #since = new Date()
  /** Of what was asked of a member that serves. */
  #trouble: string | undefined

  constructor(options: StorageOptions) {
    const { config, paths } = options
    const log = options.log.child({ component: this.name })
    const tls = () => this.#tls()
    this.#options = options
    this.#members = new Members({
      endpoints: config.etcdEndpoints ?? [],
      key: config.etcdPrefix ?? '',
      ...{ tls, log },
    })
    this.#proxy = new MemberProxy({ path: paths.datastoreSocket, members: this.#members, tls, log })
  }

  /** Its own keys tell whose cluster this is. */
  async init(): Promise<void> {
    await this.#options.credentials
  }

  async start(): Promise<void> {
    this.#enter('starting')
    this.#watching = this.#members.watch(this.#end.signal)
    await this.#proxy.listen()
    this.#enter('running')
  }

  async ready(signal: AbortSignal): Promise<void> {
    for (;;) {
      const endpoint = await this.#members.whenServing(signal)
      try {
        await this.#claim(endpoint)
        break
      } catch (error) {
        if (errorCode(error) === 'ETCD_OF_ANOTHER_CLUSTER') throw error
        this.#trouble = describeError(error)
      }
      await sleep(claimRetryMs, undefined, { signal, ref: false })
    }
    this.#trouble = undefined
    this.#enter('ready')
  }

  async stop(): Promise<void> {
    if (this.#state === 'idle' || this.#state === 'stopped') return
    this.#enter('stopping')
    this.#end.abort()
    await Promise.all([this.#proxy.stop(), this.#watching])
    this.#enter('stopped')
  }

  status(): ProcessStatus {
    const reason = this.#members.trouble() ?? this.#trouble
    return {
      name: this.name,
      ...(reason !== undefined && { reason }),
      state: this.#state,
      restarts: 0,
      since: this.#since.toISOString(),
      ...(this.#watching && { pid: process.pid }),
    }
  }

  #enter(state: ProcessStatus['state']): void {
    this.#state = state
    this.#since = new Date()
  }

  #tls(): TlsIdentity {
    const { etcdCaFile: caFile, etcdCertFile: certFile, etcdKeyFile: keyFile } = this.#options.config
    return readTlsIdentity({ caFile, certFile, keyFile })
  }

  /**
   * Writes beside the cluster's objects whose they are, or throws ETCD_OF_ANOTHER_CLUSTER: with other keys than those that
   * made it, every Secret is unreadable and no token holds.
   */
  async #claim(endpoint: string): Promise<void> {
    const { config, pki } = this.#options
    const { etcdPrefix: prefix = '', dataDir } = config
    const value = await fingerprint(pki.authorities.server.certFile)
    using member = new Member({ address: endpoint, tls: this.#tls() })
    const mark = { key: `/k8s.local/cluster${prefix}`, value, prefix }
    if ((await member.claim(mark, AbortSignal.timeout(claimLimitMs))) === value) return
    throw new AppError(
      `cannot use the etcd at ${endpoint}: below ${prefix} it has a cluster whose keys are not in ${dataDir}`,
      {
        code: 'ETCD_OF_ANOTHER_CLUSTER',
        endpoint,
        remedy: `name another --etcd-prefix for a new cluster, or bring the pki directory of that one`,
      },
    )
  }
}

/** Of a certificate file, in PEM. */
async function fingerprint(path: string): Promise<string> {
  return createHash('sha256')
    .update(new X509Certificate(await readFile(path)).raw)
    .digest('hex')
}
