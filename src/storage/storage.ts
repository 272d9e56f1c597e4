import type { AppError } from '../base/errors.ts'
export type { ListedMember } from '../datastore/member.ts'
import type { Component, ComponentContext } from '../components/component.ts'
import type { JoinQueue } from './enrolment.ts'
import type { Learners } from './learners.ts'
import type { Membership } from './membership.ts'

/**
 * Where the API server keeps the cluster's objects: all that the rest of the daemon knows of it. A new kind is a file
 * beside embedded.ts, which the rows of cluster/plan.ts name that have it.
 */
export interface Storage {
  /** What provides `storage`, in the order of their start. */
  readonly components: readonly Component[]
  /** How kube-apiserver finds it, by the names of its flags. */
  readonly apiserverFlags: Readonly<Record<string, string>>
  /** It is elsewhere: whoever needs it waits for it, and gives nothing up. */
  readonly mayBeAway: boolean
  /** Settles, with the reason, when it is lost for good and the daemon has to end. */
  readonly failed: Promise<AppError>
  /** Resolves when what of it lives in this process answers; never while that hangs. */
  ping(): Promise<void>
  readonly snapshots: SnapshotSource
  /** Who is a member of the servers' own etcd, and what those that are in do for one that joins. */
  readonly membership?: Membership
  readonly learners?: Learners
  /** Resolves when this server is a whole part of it; undefined: there is nothing to wait for. */
  readonly joined?: Promise<void>
  /** What a member of an etcd of this server's own needs now and then. */
  readonly care?: {
    /** Looks how it is, and does what can be done; rejects with what is left to somebody else. */
    look(signal: AbortSignal): Promise<void>
  }
}

export interface SnapshotSource {
  /** When the storage was made, empty. */
  createdAt(): Promise<Date>
  /** Saves a snapshot of the cluster under this name into the directory of snapshots; returns its path. */
  save(name: string, signal: AbortSignal): Promise<string>
}

/** What a storage is made of. */
export interface StorageOptions
  extends Pick<
    ComponentContext,
    'config' | 'addresses' | 'paths' | 'payload' | 'pki' | 'credentials' | 'log'
  > {
  /** Of a server that joins others, and is not in yet. */
  readonly joining?: { readonly queue: JoinQueue } | undefined
}
