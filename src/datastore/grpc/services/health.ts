import { type Service, freshWriter, unary } from '../service.ts'

const statusTag = 0x08
const serving = 1

/** grpc.health.v1.Health: the process answers, so it serves. */
export function healthService(): Service {
  const check = unary((_reader, call) => {
    const writer = freshWriter()
    writer.uint(statusTag, serving)
    call.reply(writer)
  })
  return [['/grpc.health.v1.Health/Check', check]]
}
