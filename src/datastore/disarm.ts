import { type EtcdServer, callUnary } from './grpc/client.ts'
import { MessageReader } from './grpc/protobuf/message-reader.ts'
import { MessageWriter } from './grpc/protobuf/message-writer.ts'

/** etcdserverpb.AlarmRequest, and its values for lowering NOSPACE. */
const requestTags = { action: 0x08, memberId: 0x10, alarm: 0x18 } as const
const deactivate = 2
const noSpace = 1
/** AlarmResponse.alarms, AlarmMember */
const alarmsField = 2
const alarmFields = { memberId: 1, alarm: 2 } as const

/**
 * Lowers the alarm NOSPACE of the datastore, or of the members of the etcd, that serves there; returns whether it was raised. Each
 * member has its own, and is named (client/v3/maintenance.go, AlarmDisarm); with `only` that of one alone is lowered.
 */
export async function disarmDatastore(server: EtcdServer, only?: bigint): Promise<boolean> {
  const call = async (request: MessageWriter): Promise<Buffer> =>
    callUnary({ server, method: '/etcdserverpb.Maintenance/Alarm', framed: request.framed() })
  const raised = raisedIn(await call(new MessageWriter()))
  const members = only === undefined ? raised : raised.filter((memberId) => memberId === only)
  for (const memberId of members) {
    const request = new MessageWriter()
    request.uint(requestTags.action, deactivate)
    request.bigint(requestTags.memberId, memberId)
    request.uint(requestTags.alarm, noSpace)
    await call(request)
  }
  return members.length > 0
}

/** The members whose alarm it is. */
function raisedIn(reply: Buffer): bigint[] {
  const members: bigint[] = []
  const response = new MessageReader(reply)
  while (response.next()) {
    if (response.field !== alarmsField) {
      response.skip()
      continue
    }
    const alarm = response.message()
    let [memberId, type] = [0n, 0]
    while (alarm.next()) {
      if (alarm.field === alarmFields.memberId) memberId = alarm.uint64()
      else if (alarm.field === alarmFields.alarm) type = alarm.number()
      else alarm.skip()
    }
    if (type === noSpace) members.push(memberId)
  }
  return members
}
