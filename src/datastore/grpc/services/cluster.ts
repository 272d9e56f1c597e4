import { etcdError } from '../etcd-errors.ts'
import type { MessageReader } from '../protobuf/message-reader.ts'
import { type MessageWriter, bigintFieldSize, bytesFieldSize } from '../protobuf/message-writer.ts'
import { type Service, type ServiceContext, freshWriter, unary } from '../service.ts'
import { StatusError, codes } from '../status.ts'

const memberName = 'k8s'
const membersTag = 0x12
const memberTags = { id: 0x08, name: 0x12, clientUrls: 0x22 } as const

/** etcdserverpb.Cluster: always one member, and always the same. */
export function clusterService(context: ServiceContext): Service {
  const { header, options } = context

  const list = unary((_reader, call) => {
    const writer = freshWriter()
    header.write(writer, 0)
    writeMember(writer, header.memberId, options.clientUrls())
    call.reply(writer)
  })

  const add = unary(() => {
    throw notSupported('MemberAdd')
  })

  const promote = unary((reader) => {
    requireMember(context, readMemberId(reader))
    throw etcdError('memberNotLearner')
  })

  const change = (name: string) =>
    unary((reader) => {
      requireMember(context, readMemberId(reader))
      throw notSupported(name)
    })

  return [
    ['/etcdserverpb.Cluster/MemberList', list],
    ['/etcdserverpb.Cluster/MemberAdd', add],
    ['/etcdserverpb.Cluster/MemberRemove', change('MemberRemove')],
    ['/etcdserverpb.Cluster/MemberUpdate', change('MemberUpdate')],
    ['/etcdserverpb.Cluster/MemberPromote', promote],
  ]
}

function notSupported(name: string): StatusError {
  return new StatusError(
    codes.unimplemented,
    `${name} is not supported: this datastore is its cluster's only member`,
  )
}

function requireMember({ header }: ServiceContext, id: bigint): void {
  if (id !== header.memberId) throw etcdError('memberNotFound')
}

/** All requests about a member have its id as field 1. */
function readMemberId(reader: MessageReader): bigint {
  let id = 0n
  while (reader.next()) {
    if (reader.field === 1) id = reader.uint64()
    else reader.skip()
  }
  return id
}

function writeMember(writer: MessageWriter, id: bigint, clientUrls: readonly string[]): void {
  const urls = clientUrls.map((url) => Buffer.from(url))
  const urlsSize = urls.reduce((size, url) => size + bytesFieldSize(url.length), 0)
  writer.lengthDelimited(membersTag, bigintFieldSize(id) + bytesFieldSize(memberName.length) + urlsSize)
  writer.bigint(memberTags.id, id)
  writer.text(memberTags.name, memberName)
  for (const url of urls) writer.presentBytes(memberTags.clientUrls, url)
}
