import { describeError } from '../base/errors.ts'
import { type EtcdServer, callUnary } from './grpc/client.ts'
import { findField, MessageReader } from './grpc/protobuf/message-reader.ts'
import { MessageWriter } from './grpc/protobuf/message-writer.ts'

/** Part of etcd's message when there is nothing left to compact at a revision. */
const compactedWords = 'required revision has been compacted'
/** etcdserverpb.CompactionRequest */
const compactionTags = { revision: 0x08, physical: 0x10 } as const
/** ResponseHeader.revision, in the header that each response begins with */
const headerField = 1
const revisionField = 3

/**
 * Compacts the datastore that serves there, at its newest revision if none is given; returns
 * when the superseded versions are gone and, with `defragment`, their space is given back.
 */
export async function compactDatastore(options: {
  server: EtcdServer
  revision: number | undefined
  defragment: boolean
}): Promise<{ revision: number }> {
  const { server } = options
  const revision = options.revision ?? (await currentRevision(server))
  const isDone = (error: unknown): boolean =>
    options.revision === undefined && describeError(error).includes(compactedWords)
  const request = new MessageWriter()
  request.uint(compactionTags.revision, revision)
  request.bool(compactionTags.physical, true)
  try {
    await callUnary({ server, method: '/etcdserverpb.KV/Compact', framed: request.framed() })
  } catch (thrown) {
    if (!isDone(thrown)) throw thrown
  }
  if (options.defragment)
    await callUnary({ server, method: '/etcdserverpb.Maintenance/Defragment', framed: noFields() })
  return { revision }
}

async function currentRevision(server: EtcdServer): Promise<number> {
  const reply = await callUnary({
    server,
    method: '/etcdserverpb.Maintenance/Status',
    framed: noFields(),
  })
  return findField(new MessageReader(reply), [headerField, revisionField])?.number() ?? 0
}

function noFields(): Buffer {
  return new MessageWriter().framed()
}
