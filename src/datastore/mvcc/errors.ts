/** What a request can fail with. grpc/ gives each its code and etcd's words. */
export type MvccErrorKind =
  | 'compacted'
  | 'future-revision'
  | 'key-not-found'
  | 'lease-not-found'
  | 'lease-exists'
  | 'lease-ttl-too-large'
  | 'no-space'
  | 'too-many-requests'
  | 'too-many-keys'

/** A request that cannot be served as it is; nothing was changed. */
export class MvccError extends Error {
  override readonly name = 'MvccError'
  readonly kind: MvccErrorKind

  constructor(kind: MvccErrorKind) {
    super(kind)
    this.kind = kind
  }
}
