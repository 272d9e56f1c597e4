/** The empty byte string that tombstones and empty values share. */
export const noBytes: Uint8Array = new Uint8Array(0)

/**
 * One state of one key: what a put wrote, or the tombstone that a delete left (version 0). Keys are
 * latin1 strings, one character a byte, so that comparing strings compares bytes.
 */
export class Version {
  readonly key: string
  /** Its place in the log; ascends over all keys. */
  readonly seq: number
  /** mod_revision. */
  readonly revision: number
  readonly createRevision: number
  /** Puts since the key was created; 0 marks a tombstone. */
  readonly version: number
  readonly lease: bigint
  readonly valueBytes: number
  /** The key's state before, until compaction drops it. */
  previous: Version | undefined

  constructor(fields: {
    key: string
    seq: number
    revision: number
    createRevision: number
    version: number
    lease: bigint
    valueBytes: number
    previous: Version | undefined
  }) {
    this.key = fields.key
    this.seq = fields.seq
    this.revision = fields.revision
    this.createRevision = fields.createRevision
    this.version = fields.version
    this.lease = fields.lease
    this.valueBytes = fields.valueBytes
    this.previous = fields.previous
  }

  get isTombstone(): boolean {
    return this.version === 0
  }
}

/** The state that a key had at a revision; undefined when it did not exist then. */
export function versionAt(newest: Version, revision: number): Version | undefined {
  let version: Version | undefined = newest
  while (version !== undefined && version.revision > revision) version = version.previous
  return version === undefined || version.isTombstone ? undefined : version
}
