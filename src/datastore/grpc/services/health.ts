import { type Service, freshWriter, unary } from '../service.ts'
import type { MessageReader } from '../protobuf/message-reader.ts'
import type { MessageWriter } from '../protobuf/message-writer.ts'
import { StatusError, codes } from '../status.ts'

const statusTag = 0x08
/** grpc.health.v1.HealthCheckResponse.ServingStatus */
const statuses = { serving: 1, serviceUnknown: 3 } as const

/** etcd names no service but the server as a whole: api/v3rpc/health.go. */
const wholeServer = ''

/** grpc.health.v1.Health: the process answers, so it serves. */
export function healthService(): Service {
  const check = unary((reader, call) => {
    if (readService(reader) !== wholeServer) throw new StatusError(codes.notFound, 'unknown service')
    call.reply(response(statuses.serving))
  })

  /** The status, which does not change while there is somebody to tell of it. */
  const watch = unary((reader, call) => {
    const isKnown = readService(reader) === wholeServer
    call.send(response(isKnown ? statuses.serving : statuses.serviceUnknown))
  })

  return [
    ['/grpc.health.v1.Health/Check', check],
    ['/grpc.health.v1.Health/Watch', watch],
  ]
}

function response(status: number): MessageWriter {
  const writer = freshWriter()
  writer.uint(statusTag, status)
  return writer
}

function readService(reader: MessageReader): string {
  let service = ''
  while (reader.next()) {
    if (reader.field === 1) service = reader.text()
    else reader.skip()
  }
  return service
}
