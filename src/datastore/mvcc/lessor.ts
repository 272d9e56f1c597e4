import type { Log } from '../log/log.ts'
import { MvccError } from './errors.ts'
import type { KeyIndex } from './key-index.ts'
import type { Version } from './version.ts'

/** etcd with its default election timeout of a second: server/etcdserver/server.go, minTTL. */
const minTtlSeconds = 2
/** etcd: server/lease/lessor.go, MaxLeaseTTL. */
const maxTtlSeconds = 9_000_000_000
/** The least time between two looks at expired leases, and how many end in one go (lessor.go, leaseRevokeRate). */
const expiryIntervalMs = 500
const expiryLimit = 1000
/** A lease takes some 1.2 kB of memory, and kube-apiserver has a few thousand. */
const leasesLimit = 300_000
const longestTimerMs = 2 ** 31 - 1

export const noLease = 0n

export interface Lease {
  readonly id: bigint
  readonly ttlSeconds: number
  /** On a monotonic clock. */
  deadlineMs: number
  readonly keys: Set<string>
}

/**
 * Leases and the keys that are attached to them. The log has their time to live alone: a start grants all of it
 * anew, since those who renew could not while nothing ran, and no clock tells how long that was. (etcd: server/lease/lessor.go,
 * Promote.) So nothing here reads the wall clock, which may jump, and a renewal needs no write.
 */
export class Lessor {
  readonly #log: Pick<Log, 'readLeases' | 'appendLease' | 'appendLeaseEnd'>
  readonly #store: { readonly index: Pick<KeyIndex, 'visitLeased'> }
  readonly #leases = new Map<bigint, Lease>()
  /** Called when leases are due; it ends them as transactions. */
  readonly #onExpired: (leases: readonly Lease[]) => void
  readonly #now: () => number
  #timer: NodeJS.Timeout | undefined
  /** When the timer fires, on the monotonic clock. */
  #wakeMs = 0

  /** `now` gives milliseconds that never go back. */
  constructor({
    log,
    store,
    onExpired,
    now = () => performance.now(),
  }: {
    log: Pick<Log, 'readLeases' | 'appendLease' | 'appendLeaseEnd'>
    store: { readonly index: Pick<KeyIndex, 'visitLeased'> }
    onExpired: (leases: readonly Lease[]) => void
    now?: () => number
  }) {
    this.#log = log
    this.#store = store
    this.#onExpired = onExpired
    this.#now = now
    this.reload()
  }

  /** Takes up what is on disk. A lease that was known goes on with what it had left. */
  reload(): void {
    const known = new Map(this.#leases)
    this.#leases.clear()
    const nowMs = this.#now()
    for (const { id, ttlSeconds } of this.#log.readLeases()) {
      const deadlineMs = known.get(id)?.deadlineMs ?? nowMs + ttlSeconds * 1000
      this.#leases.set(id, { id, ttlSeconds, deadlineMs, keys: new Set() })
    }
    if (this.#leases.size > 0) this.#store.index.visitLeased((version) => this.attach(version))
    this.#scheduleNext()
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  get size(): number {
    return this.#leases.size
  }

  get(id: bigint): Lease | undefined {
    return this.#leases.get(id)
  }

  /** All leases in the order in which etcd lists them: by the time that they have left. */
  list(): Lease[] {
    return [...this.#leases.values()].sort((one, other) => one.deadlineMs - other.deadlineMs)
  }

  require(id: bigint): Lease {
    const lease = this.#leases.get(id)
    if (lease === undefined) throw new MvccError('lease-not-found')
    return lease
  }

  /** Grants a lease; an id of 0 asks for one of the server's choice. */
  grant({ id, ttlSeconds }: { id: bigint; ttlSeconds: number }): Lease {
    if (ttlSeconds > maxTtlSeconds) throw new MvccError('lease-ttl-too-large')
    if (this.#leases.has(id)) throw new MvccError('lease-exists')
    if (this.#leases.size >= leasesLimit) throw new MvccError('too-many-requests')
    const granted = Math.max(ttlSeconds, minTtlSeconds)
    const lease: Lease = {
      id: id === noLease ? this.#freeId() : id,
      ttlSeconds: granted,
      deadlineMs: 0,
      keys: new Set(),
    }
    this.#leases.set(lease.id, lease)
    this.#log.appendLease({ id: lease.id, ttlSeconds: granted })
    this.renew(lease)
    return lease
  }

  renew(lease: Lease): void {
    lease.deadlineMs = this.#now() + lease.ttlSeconds * 1000
    this.#schedule(lease.deadlineMs)
  }

  /** The time that a lease has left; negative when it is over. */
  remainingMs(lease: Lease): number {
    return lease.deadlineMs - this.#now()
  }

  /** Forgets a lease. Its keys are deleted by the caller, in the same transaction. */
  end(lease: Lease): void {
    this.#leases.delete(lease.id)
    this.#log.appendLeaseEnd(lease.id)
  }

  /** Ties a new version's key to its lease, and frees it from the one that it had. */
  attach(version: Version): void {
    const { previous } = version
    if (previous !== undefined && previous.lease !== version.lease) {
      this.#leases.get(previous.lease)?.keys.delete(version.key)
    }
    if (version.lease !== noLease) this.#leases.get(version.lease)?.keys.add(version.key)
  }

  isExpired(lease: Lease): boolean {
    return this.remainingMs(lease) <= 0
  }

  /** Positive and free, as etcd chooses them (etcdserver/v3_server.go, LeaseGrant). */
  #freeId(): bigint {
    for (;;) {
      const [random = 0n] = crypto.getRandomValues(new BigUint64Array(1))
      const id = random & 0x7fff_ffff_ffff_ffffn
      if (id !== noLease && !this.#leases.has(id)) return id
    }
  }

  /** Sets the timer to the deadline, unless it fires before that anyway. */
  #schedule(deadlineMs: number): void {
    if (this.#timer !== undefined && this.#wakeMs <= deadlineMs) return
    this.stop()
    const nowMs = this.#now()
    this.#wakeMs = Math.min(Math.max(deadlineMs, nowMs + expiryIntervalMs), nowMs + longestTimerMs)
    this.#timer = setTimeout(() => this.#expire(), this.#wakeMs - nowMs).unref()
  }

  #expire(): void {
    this.#timer = undefined
    const due = this.list().filter((lease) => this.isExpired(lease))
    if (due.length > 0) this.#onExpired(due.slice(0, expiryLimit))
    this.#scheduleNext()
  }

  #scheduleNext(): void {
    let earliestMs = Number.POSITIVE_INFINITY
    for (const { deadlineMs } of this.#leases.values()) earliestMs = Math.min(earliestMs, deadlineMs)
    if (earliestMs !== Number.POSITIVE_INFINITY) this.#schedule(earliestMs)
  }
}
