import { holds } from './compare.ts'
import { MvccError } from './errors.ts'
import { type Lease, type Lessor, noLease } from './lessor.ts'
import {
  type DeleteRangeRequest,
  type DeleteRangeResult,
  type Operation,
  type OperationResult,
  type PutRequest,
  type PutResult,
  type RangeRequest,
  type RangeResult,
  type TxnRequest,
  type TxnResult,
  sortTargets,
} from './requests.ts'
import type { Store } from './store.ts'
import { readCost } from './range.ts'
import { Work } from './work.ts'
import type { Version } from './version.ts'

/** What ranges of the past have found, by the requests. */
export type PastResults = ReadonlyMap<RangeRequest, RangeResult>

/**
 * Executes what writes, at the store's head: first everything that can fail is checked on the state
 * before the transaction, then it is done, which cannot fail. Nothing here waits: a transaction has
 * happened, in memory, when its method returns. etcd: etcdserver/txn/.
 */
export class Transactions {
  readonly #store: Store
  readonly #lessor: Lessor
  #past: PastResults = new Map()

  constructor(store: Store, lessor: Lessor) {
    this.#store = store
    this.#lessor = lessor
  }

  put(request: PutRequest): PutResult {
    this.#checkPut(request)
    const result = this.#put(request)
    this.#store.endTransaction()
    return result
  }

  deleteRange(request: DeleteRangeRequest): DeleteRangeResult {
    this.#budget().changed.spend(this.#deletions(request))
    const result = this.#deleteRange(request)
    this.#store.endTransaction()
    return result
  }

  /** `past` has what was read already for ranges that are not in memory. */
  txn(request: TxnRequest, past: PastResults): TxnResult {
    this.#past = past
    const budget = this.#budget()
    const plan = this.#plan(request, budget)
    this.#check(plan, budget)
    const { results, succeeded } = this.#execute(plan)
    return { kind: 'txn', succeeded, results, revision: this.#store.endTransaction() }
  }

  /** Ends a lease and deletes its keys, sorted, in one revision: server/lease/lessor.go, Revoke. */
  revoke(lease: Lease): void {
    for (const key of [...lease.keys].sort()) {
      const version = this.#store.index.get(key)
      if (version !== undefined && !version.isTombstone) this.#lessor.attach(this.#store.delete(version))
    }
    this.#lessor.end(lease)
    this.#store.endTransaction()
  }

  /** Which branches are taken: all comparisons are made before the first operation. */
  #plan(request: TxnRequest, budget: Budget): Plan {
    const succeeded = request.compares.every((compare) => holds(this.#store, compare, budget.read))
    const operations = succeeded ? request.success : request.failure
    return {
      succeeded,
      steps: operations.map((operation) =>
        operation.kind === 'txn' ? this.#plan(operation, budget) : operation,
      ),
    }
  }

  #check(plan: Plan, budget: Budget): void {
    for (const step of plan.steps) {
      if ('steps' in step) this.#check(step, budget)
      else if (step.kind === 'range') this.#checkRange(step, budget)
      else if (step.kind === 'put') this.#checkPut(step)
      else budget.changed.spend(this.#deletions(step))
    }
  }

  #budget(): Budget {
    const { readKeys, changedKeys } = this.#store.limits
    return { read: new Work(readKeys), changed: new Work(changedKeys) }
  }

  #deletions(range: DeleteRangeRequest): number {
    return range.end === '' ? 1 : this.#store.index.countLive(range)
  }

  /** etcd: etcdserver/txn/range.go, checkRange; unlike alone, a negative revision counts here. */
  #checkRange(request: RangeRequest, { read }: Budget): void {
    const { revision } = request
    if (revision > this.#store.head) throw new MvccError('future-revision')
    if (revision !== 0 && revision < this.#store.compactedRevision) throw new MvccError('compacted')
    if (!this.#past.has(request)) read.spend(readCost(this.#store, request, this.#store.head))
    // Values that cannot be read must show before anything is written.
    if (request.sortTarget === sortTargets.value)
      this.#store.rangeInTransaction({ ...request, revision: 0 }, this.#store.head)
  }

  #checkPut(request: PutRequest): void {
    if (request.lease !== noLease) this.#requireRoom(this.#lessor.require(request.lease), request.key)
    if (!request.ignoreValue && !request.ignoreLease) return
    const newest = this.#store.index.get(request.key)
    if (newest === undefined || newest.isTombstone) throw new MvccError('key-not-found')
    if (request.ignoreValue) this.#store.valueOf(newest)
  }

  /** All keys of a lease end in one revision. */
  #requireRoom({ keys }: Lease, key: string): void {
    if (keys.size >= this.#store.limits.changedKeys && !keys.has(key)) throw new MvccError('too-many-keys')
  }

  #execute(plan: Plan): { succeeded: boolean; results: OperationResult[] } {
    const results = plan.steps.map((step): OperationResult => {
      if (!('steps' in step)) return this.#executeOne(step)
      return { kind: 'txn', revision: 0, ...this.#execute(step) }
    })
    return { succeeded: plan.succeeded, results }
  }

  #executeOne(operation: Exclude<Operation, TxnRequest>): OperationResult {
    switch (operation.kind) {
      case 'range':
        return this.#range(operation)
      case 'put':
        return this.#put(operation)
      case 'delete-range':
        return this.#deleteRange(operation)
    }
  }

  #range(request: RangeRequest): RangeResult {
    const match = this.#past.get(request)
    if (match === undefined) return this.#store.rangeInTransaction(request, this.#revision)
    return { ...match, revision: this.#revision }
  }

  /** What a read in the transaction sees as the newest revision. */
  get #revision(): number {
    return this.#store.head + (this.#store.hasChanges ? 1 : 0)
  }

  #put(request: PutRequest): PutResult {
    const newest = this.#store.index.get(request.key)
    const live = newest === undefined || newest.isTombstone ? undefined : newest
    const value = request.ignoreValue && live !== undefined ? this.#store.valueOf(live) : request.value
    const lease = request.ignoreLease && live !== undefined ? live.lease : request.lease
    this.#lessor.attach(this.#store.put(request.key, value, lease))
    return { kind: 'put', revision: this.#revision, previous: request.previousKv ? live : undefined }
  }

  #deleteRange(request: DeleteRangeRequest): DeleteRangeResult {
    const found: Version[] = []
    if (request.end === '') {
      const newest = this.#store.index.get(request.key)
      if (newest !== undefined && !newest.isTombstone) found.push(newest)
    } else {
      this.#store.index.walk(request, (newest) => {
        if (!newest.isTombstone) found.push(newest)
        return true
      })
    }
    for (const version of found) this.#lessor.attach(this.#store.delete(version))
    return {
      kind: 'delete-range',
      revision: this.#revision,
      deleted: found.length,
      previous: request.previousKv ? found : [],
    }
  }
}

interface Budget {
  readonly read: Work
  readonly changed: Work
}

/** A transaction whose comparisons were made. */
interface Plan {
  readonly succeeded: boolean
  readonly steps: readonly (Plan | Exclude<Operation, TxnRequest>)[]
}
