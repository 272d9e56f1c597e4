import type { Version } from '../../mvcc/version.ts'
import {
  type MessageWriter,
  bigintFieldSize,
  bytesFieldSize,
  messageFieldSize,
  uintFieldSize,
} from '../protobuf/message-writer.ts'

const keyTag = 0x0a
const createRevisionTag = 0x10
const modRevisionTag = 0x18
const versionTag = 0x20
const valueTag = 0x2a
const leaseTag = 0x30

/** How a KeyValue is sent: whole; or, when only keys were asked for, without value and lease. */
export type Detail = 'whole' | 'key'

/** The size of a mvccpb.KeyValue. A tombstone has only its key and the revision of the deletion. */
function keyValueSize(version: Version, detail: Detail = 'whole'): number {
  return (
    bytesFieldSize(version.key.length) +
    uintFieldSize(version.createRevision) +
    uintFieldSize(version.revision) +
    uintFieldSize(version.version) +
    (detail === 'whole' ? bytesFieldSize(version.valueBytes) + bigintFieldSize(version.lease) : 0)
  )
}

export function writeKeyValue(
  writer: MessageWriter,
  {
    tag,
    version,
    value,
    detail = 'whole',
  }: { tag: number; version: Version; value: Uint8Array; detail?: Detail },
): void {
  writer.lengthDelimited(tag, keyValueSize(version, detail))
  writeKeyValueFields(writer, version, detail === 'key' ? undefined : value)
}

/** The fields of a mvccpb.KeyValue, which ends with the version when there is no value. */
export function writeKeyValueFields(
  writer: MessageWriter,
  version: Pick<Version, 'key' | 'createRevision' | 'revision' | 'version' | 'lease'>,
  value: Uint8Array | undefined,
): void {
  writer.latin1(keyTag, version.key)
  writer.uint(createRevisionTag, version.createRevision)
  writer.uint(modRevisionTag, version.revision)
  writer.uint(versionTag, version.version)
  if (value === undefined) return
  writer.bytes(valueTag, value)
  writer.bigint(leaseTag, version.lease)
}

export function keyValueFieldSize(version: Version, detail: Detail = 'whole'): number {
  return messageFieldSize(keyValueSize(version, detail))
}
