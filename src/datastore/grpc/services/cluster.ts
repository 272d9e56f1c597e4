import { type MessageWriter, bigintFieldSize, bytesFieldSize } from '../protobuf/message-writer.ts'
import { type Service, type ServiceContext, freshWriter, unary } from '../service.ts'

const memberName = 'k8s'
const membersTag = 0x12
const memberTags = { id: 0x08, name: 0x12, clientUrls: 0x22 } as const

/** etcdserverpb.Cluster: always one member. */
export function clusterService(context: ServiceContext): Service {
  const { header, options } = context
  const memberList = unary((_reader, call) => {
    const writer = freshWriter()
    header.write(writer, 0)
    writeMember(writer, header.memberId, options.clientUrls)
    call.reply(writer)
  })
  return [['/etcdserverpb.Cluster/MemberList', memberList]]
}

function writeMember(writer: MessageWriter, id: bigint, clientUrls: readonly string[]): void {
  const urls = clientUrls.map((url) => Buffer.from(url))
  const urlsSize = urls.reduce((size, url) => size + bytesFieldSize(url.length), 0)
  writer.lengthDelimited(membersTag, bigintFieldSize(id) + bytesFieldSize(memberName.length) + urlsSize)
  writer.bigint(memberTags.id, id)
  writer.text(memberTags.name, memberName)
  for (const url of urls) writer.presentBytes(memberTags.clientUrls, url)
}
