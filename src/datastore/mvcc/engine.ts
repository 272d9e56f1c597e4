import { AppError } from '../../base/errors.ts'
import type { Log, SpaceUse } from '../log/log.ts'
import { MvccError } from './errors.ts'
import { HashScan } from './hash-scan.ts'
import { type Lease, Lessor } from './lessor.ts'
import type {
  DeleteRangeRequest,
  DeleteRangeResult,
  PutRequest,
  PutResult,
  RangeRequest,
  RangeResult,
  TxnRequest,
  TxnResult,
} from './requests.ts'
import { OpenRanges } from './open-ranges.ts'
import { PastReads, oldestRead } from './past-reads.ts'
import { leaseCostBytes, putCostBytes, txnCostBytes } from './quota.ts'
import { type AlarmCause, SpaceAlarm } from './space-alarm.ts'
import { Store, type StoreLimits } from './store.ts'
import { type PastResults, Transactions } from './transaction.ts'
import { WatchHub } from './watch-hub.ts'

/** Changes that one step of a compaction goes through; requests have their turn between two steps. */
const compactionStep = 200
/** How often a compaction looks whether the ranges that it waits for have been read. */
const openRangesPollMs = 20
/** With this much waiting for the disk, further writes are refused. */
const uncommittedLimitBytes = 128 * 1024 * 1024
/** After a commit was lost, no other write is tried for this long; it doubles with each one lost. */
const lossPauseMs = { first: 1000, longest: 30_000 } as const

interface EngineOptions {
  readonly log: Log
  /** What is kept in memory. */
  readonly limits?: StoreLimits | undefined
  readonly quotaBytes: number
  /** The log cannot go on; nothing more will be acknowledged. */
  readonly onFailure: (error: AppError) => void
  /** Something is wrong that its users should know of; it goes on. */
  readonly onTrouble: (error: AppError) => void
  /** The alarm NOSPACE was raised, for a reason, or lowered. */
  readonly onAlarm?: (cause: AlarmCause | undefined) => void
}

/**
 * etcd's semantics without its protocol. What writes returns its result at once; the result may leave
 * only from an `afterCommit` callback, when the disk has it.
 */
export class Engine {
  readonly store: Store
  readonly lessor: Lessor
  readonly hub: WatchHub
  readonly #log: Log
  /** What is not in memory. */
  readonly past: PastReads
  readonly #openRanges = new OpenRanges()
  readonly #transactions: Transactions
  readonly #quotaBytes: number
  readonly #onTrouble: (error: AppError) => void
  readonly #alarm: SpaceAlarm
  #lossPauseMs: number = lossPauseMs.first
  /** Until then the disk is taken to be full; on the monotonic clock. */
  #pausedUntilMs = 0
  #onPublished: () => void = () => undefined
  #isCompacting = false
  #compactionsWaiting: (() => void)[] = []

  constructor({ log, limits, quotaBytes, onFailure, onTrouble, onAlarm }: EngineOptions) {
    this.#log = log
    this.#onTrouble = onTrouble
    this.#quotaBytes = quotaBytes
    this.store = new Store(log, limits)
    this.past = new PastReads(this.store, this.#openRanges)
    this.lessor = new Lessor({ log, store: this.store, onExpired: (leases) => this.#expire(leases) })
    this.hub = new WatchHub(this.store)
    this.#transactions = new Transactions(this.store, this.lessor)
    this.#alarm = new SpaceAlarm({
      log,
      onChange: (cause) => {
        // Whoever lowers it says that there is space again: it is tried at once.
        if (cause === undefined) this.#pausedUntilMs = 0
        onAlarm?.(cause)
      },
    })
    this.store.listen({
      published: (versions, revision) => {
        this.hub.publish(versions, revision)
        this.#onPublished()
      },
    })
    log.listen({
      committed: (revision) => this.#committed(revision),
      lost: () => this.#lost(),
      failed: onFailure,
      damaged: onTrouble,
    })
    this.#removeSuperseded()
  }

  /** Why the alarm NOSPACE is set; undefined when it is not. */
  get alarm(): AlarmCause | undefined {
    return this.#alarm.cause
  }

  get hasNoSpace(): boolean {
    return this.#alarm.cause !== undefined
  }

  get space(): SpaceUse {
    return this.#log.space
  }

  get appendedBytes(): number {
    return this.#log.appendedBytes
  }

  /** Calls back whenever something was written. */
  onPublished(callback: () => void): void {
    this.#onPublished = callback
  }

  get quotaBytes(): number {
    return this.#quotaBytes
  }

  /** Calls back when all that was written so far is on disk, or with false when it was lost. */
  afterCommit(callback: (isCommitted: boolean) => void): void {
    this.#log.afterCommit(callback)
  }

  range(request: RangeRequest): RangeResult {
    return this.store.range(request)
  }

  /**
   * Keeps the values of a range that was just read on disk until the returned function is called. A compaction that has
   * waited for that long enough calls `interrupt`, which has to call it.
   */
  keepOpen(request: RangeRequest, interrupt: () => void): () => void {
    return this.#openRanges.open(request.revision > 0 ? request.revision : this.store.revision, interrupt)
  }

  put(request: PutRequest): PutResult {
    this.#checkSpace(putCostBytes(request))
    return this.#transactions.put(request)
  }

  deleteRange(request: DeleteRangeRequest): DeleteRangeResult {
    this.#checkBacklog()
    return this.#transactions.deleteRange(request)
  }

  txn(request: TxnRequest, past: PastResults = new Map()): TxnResult {
    const costBytes = txnCostBytes(request)
    if (costBytes > 0) this.#checkSpace(costBytes)
    else this.#checkBacklog()
    const result = this.#transactions.txn(request, past)
    this.#keepUntilCommit(oldestRead(request))
    return result
  }

  /**
   * Keeps what a revision shows on disk until all that was written so far is, when its reply is made: a compaction that
   * comes meanwhile could be part of the same commit. The newest state needs no such thing, and neither does what a write
   * replaces: nothing after it can be compacted before it is published, and replies are made in that very turn.
   */
  #keepUntilCommit(revision: number): void {
    if (revision >= this.store.revision) return
    // It is never interrupted: a commit ends, or the datastore does.
    const close = this.#openRanges.open(revision, () => undefined)
    this.afterCommit(close)
  }

  grantLease(request: { id: bigint; ttlSeconds: number }): Lease {
    this.#checkSpace(leaseCostBytes)
    return this.lessor.grant(request)
  }

  revokeLease(id: bigint): void {
    this.#checkBacklog()
    this.#transactions.revoke(this.lessor.require(id))
  }

  /** Renews a lease; undefined when there is none, or none any more because its time is over. */
  renewLease(id: bigint): Lease | undefined {
    const lease = this.lessor.get(id)
    if (lease === undefined) return undefined
    this.#checkBacklog()
    if (this.lessor.isExpired(lease)) {
      this.#transactions.revoke(lease)
      return undefined
    }
    this.lessor.renew(lease)
    return lease
  }

  /** Compacts; `removed` is called when what is superseded has also been removed from the disk. */
  compact(revision: number, removed?: () => void): void {
    this.store.compact(revision)
    if (removed !== undefined) this.#compactionsWaiting.push(removed)
    this.#removeSuperseded()
  }

  /** The versions that a hash at a revision is made of; 0 means the newest. */
  scanForHash(revision: number): HashScan {
    return new HashScan({ store: this.store, revision, openReader: () => this.#log.openReader() })
  }

  /** Gives all free space back to the file system; calls back when that is done. */
  tidy(done: () => void): void {
    this.#log.tidy(done)
  }

  /** Sets or clears the alarm NOSPACE, as a client asks. */
  setNoSpace(hasNoSpace: boolean): void {
    if (hasNoSpace) this.#alarm.raise('request')
    else this.#alarm.lower()
  }

  stop(): void {
    this.lessor.stop()
    this.#alarm.stop()
  }

  #removeSuperseded(): void {
    if (this.#isCompacting) return
    this.#isCompacting = true
    setImmediate(() => this.#compactStep())
  }

  /** Each step waits for the commit of the one before, so that writes are never behind more than one. */
  #compactStep(): void {
    const isHeldUp = this.#openRanges.isOpenBefore(this.store.compactedRevision)
    const pauseMs = Math.max(isHeldUp ? openRangesPollMs : 0, this.#pausedUntilMs - performance.now())
    if (pauseMs > 0) {
      setTimeout(() => this.#compactStep(), pauseMs).unref()
      return
    }
    if (this.#compactSome()) {
      this.#log.afterCommit(() => setImmediate(() => this.#compactStep()))
      return
    }
    this.#isCompacting = false
    const waiting = this.#compactionsWaiting
    this.#compactionsWaiting = []
    this.#log.afterCommit(() => {
      for (const removed of waiting) removed()
    })
  }

  /** What cannot be read was told, and is left where it is. */
  #compactSome(): boolean {
    try {
      return this.store.compactStep(compactionStep)
    } catch {
      return false
    }
  }

  #expire(leases: readonly Lease[]): void {
    // They stay due until there is space for their end.
    if (this.#isPaused) return
    for (const lease of leases) this.#transactions.revoke(lease)
  }

  #committed(revision: number): void {
    this.#lossPauseMs = lossPauseMs.first
    this.#alarm.diskHasRoom()
    this.store.publish(revision)
  }

  /** The disk is full: memory goes back to what is on it, and the alarm is set. */
  #lost(): void {
    this.store.rollBack()
    this.lessor.reload()
    this.#alarm.diskIsFull()
    this.#pausedUntilMs = performance.now() + this.#lossPauseMs
    this.#lossPauseMs = Math.min(this.#lossPauseMs * 2, lossPauseMs.longest)
    // What the lost commit would have removed is still there.
    this.#removeSuperseded()
    this.#onTrouble(
      new AppError('cannot write to the datastore: the disk is full', {
        code: 'DATASTORE_NO_SPACE',
        remedy:
          'Free space: writes go on by themselves then, or at once after "k8s db disarm". Reads and watches go on.',
      }),
    )
  }

  get #isPaused(): boolean {
    return performance.now() < this.#pausedUntilMs
  }

  /** etcd: etcdserver/apply/apply.go, applierV3Capped, and api/v3rpc/quota.go. What waits for the disk counts, too. */
  #checkSpace(costBytes: number): void {
    const bytes = this.#log.space.bytesInUse + this.#log.uncommittedBytes + costBytes
    if (this.#quotaBytes > 0 && bytes >= this.#quotaBytes) this.#alarm.raise('quota')
    if (this.hasNoSpace) throw new MvccError('no-space')
    if (!this.store.hasRoomForKeys) {
      this.#onTrouble(outOfMemory())
      throw new MvccError('no-space')
    }
    this.#checkBacklog()
  }

  #checkBacklog(): void {
    if (this.#isPaused) throw new MvccError('no-space')
    if (this.#log.uncommittedBytes > uncommittedLimitBytes) throw new MvccError('too-many-requests')
  }
}

function outOfMemory(): AppError {
  return new AppError('cannot take more keys: there is no memory for them', {
    code: 'DATASTORE_NO_MEMORY',
    remedy: 'Delete objects, or give the machine more memory; reads and watches go on.',
  })
}
