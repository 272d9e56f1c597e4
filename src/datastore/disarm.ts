import { type EtcdServer, callUnary } from './grpc/client.ts'
import { MessageReader } from './grpc/protobuf/message-reader.ts'
import { MessageWriter } from './grpc/protobuf/message-writer.ts'

/** etcdserverpb.AlarmRequest, and its values for lowering NOSPACE. */
const requestTags = { action: 0x08, alarm: 0x18 } as const
const deactivate = 2
const noSpace = 1
/** AlarmResponse.alarms */
const alarmsField = 2

/** Lowers the alarm NOSPACE of the datastore, or of the etcd, that serves there; returns whether it was raised. */
export async function disarmDatastore(server: EtcdServer): Promise<boolean> {
  const request = new MessageWriter()
  request.uint(requestTags.action, deactivate)
  request.uint(requestTags.alarm, noSpace)
  const reply = await callUnary({
    server,
    method: '/etcdserverpb.Maintenance/Alarm',
    framed: request.framed(),
  })
  const response = new MessageReader(reply)
  let wasRaised = false
  while (response.next()) {
    if (response.field === alarmsField) wasRaised = true
    response.skip()
  }
  return wasRaised
}
