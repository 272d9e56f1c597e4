import { errorCode } from '../../base/errors.ts'
import { MvccError, type MvccErrorKind } from '../mvcc/errors.ts'
import { type Code, StatusError, codes } from './status.ts'

/** etcd's errors with its codes and words: api/v3rpc/rpctypes/error.go. */
const etcdErrors = {
  emptyKey: [codes.invalidArgument, 'etcdserver: key is not provided'],
  keyNotFound: [codes.invalidArgument, 'etcdserver: key not found'],
  valueProvided: [codes.invalidArgument, 'etcdserver: value is provided'],
  leaseProvided: [codes.invalidArgument, 'etcdserver: lease is provided'],
  tooManyOperations: [codes.invalidArgument, 'etcdserver: too many operations in txn request'],
  duplicateKey: [codes.invalidArgument, 'etcdserver: duplicate key given in txn request'],
  invalidSortOption: [codes.invalidArgument, 'etcdserver: invalid sort option'],
  compacted: [codes.outOfRange, 'etcdserver: mvcc: required revision has been compacted'],
  futureRevision: [codes.outOfRange, 'etcdserver: mvcc: required revision is a future revision'],
  noSpace: [codes.resourceExhausted, 'etcdserver: mvcc: database space exceeded'],
  leaseNotFound: [codes.notFound, 'etcdserver: requested lease not found'],
  leaseExists: [codes.failedPrecondition, 'etcdserver: lease already exists'],
  leaseTtlTooLarge: [codes.outOfRange, 'etcdserver: too large lease TTL'],
  requestTooLarge: [codes.invalidArgument, 'etcdserver: request is too large'],
  tooManyKeys: [codes.resourceExhausted, 'k8s: too many keys for one request: ask in parts'],
  tooManyRequests: [codes.resourceExhausted, 'etcdserver: too many requests'],
  stopped: [codes.unavailable, 'etcdserver: server stopped'],
  memberNotFound: [codes.notFound, 'etcdserver: member not found'],
  memberNotLearner: [codes.failedPrecondition, 'etcdserver: can only promote a learner member'],
  badLeaderTransferee: [codes.failedPrecondition, 'etcdserver: bad leader transferee'],
  wrongDowngradeVersion: [codes.invalidArgument, 'etcdserver: wrong downgrade target version format'],
  invalidDowngradeTarget: [codes.invalidArgument, 'etcdserver: invalid downgrade target version'],
  notAuthEnabled: [codes.failedPrecondition, 'etcdserver: authentication is not enabled'],
  rootUserNotExist: [codes.failedPrecondition, 'etcdserver: root user does not exist'],
} as const satisfies Record<string, readonly [Code, string]>

export type EtcdErrorName = keyof typeof etcdErrors

export function etcdError(name: EtcdErrorName): StatusError {
  const [code, message] = etcdErrors[name]
  return new StatusError(code, message)
}

export function etcdMessage(name: EtcdErrorName): string {
  return etcdErrors[name][1]
}

const nameOfKind: Readonly<Record<MvccErrorKind, EtcdErrorName>> = {
  compacted: 'compacted',
  'future-revision': 'futureRevision',
  'key-not-found': 'keyNotFound',
  'lease-not-found': 'leaseNotFound',
  'lease-exists': 'leaseExists',
  'lease-ttl-too-large': 'leaseTtlTooLarge',
  'no-space': 'noSpace',
  'too-many-requests': 'tooManyRequests',
  'too-many-keys': 'tooManyKeys',
}

/** Runs what may fail with an error of the engine, and gives that error its code. */
export function withEtcdErrors<Result>(run: () => Result): Result {
  try {
    return run()
  } catch (thrown) {
    if (thrown instanceof MvccError) throw etcdError(nameOfKind[thrown.kind])
    throw errorCode(thrown) === damagedCode ? damaged : thrown
  }
}

/** What a call fails with for anything that was thrown. */
export function toStatus(thrown: unknown): StatusError {
  if (thrown instanceof StatusError) return thrown
  if (thrown instanceof MvccError) return etcdError(nameOfKind[thrown.kind])
  if (errorCode(thrown) === damagedCode) return damaged
  return new StatusError(codes.internal, 'internal error')
}

/** Of datastore/log: a value that is in the log cannot be read. */
const damagedCode = 'DATASTORE_DAMAGED_VALUE'
const damaged = new StatusError(
  codes.dataLoss,
  'k8s: a value cannot be read: the database or its disk is damaged (k8s db check)',
)
