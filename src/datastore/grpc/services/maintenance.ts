import { etcdError } from '../etcd-errors.ts'
import type { MessageReader } from '../protobuf/message-reader.ts'
import type { MessageWriter } from '../protobuf/message-writer.ts'
import { uintFieldSize, bigintFieldSize } from '../protobuf/message-writer.ts'
import { raftTerm } from '../messages/header.ts'
import { type Service, type ServiceContext, freshWriter, replyAfterCommit, unary } from '../service.ts'

/** The version of etcd whose behaviour this server follows; clients switch features on by it. */
export const etcdVersion = '3.7.3'
export const storageVersion = '3.7.0'
const clusterVersion = '3.7'

/** etcdserverpb.AlarmType and AlarmRequest.AlarmAction */
const alarmNone = 0
const alarmNoSpace = 1
const alarmActions = { get: 0, activate: 1, deactivate: 2 } as const

/** etcdserverpb.DowngradeRequest.DowngradeAction */
const downgradeCancel = 2
const downgradeVersionTag = 0x12

const alarmsTag = 0x12
const alarmMemberTags = { memberId: 0x08, alarm: 0x10 } as const
const statusTags = {
  version: 0x12,
  dbSize: 0x18,
  leader: 0x20,
  raftIndex: 0x28,
  raftTerm: 0x30,
  raftAppliedIndex: 0x38,
  errors: 0x42,
  dbSizeInUse: 0x48,
  storageVersion: 0x5a,
  dbSizeQuota: 0x60,
  downgradeInfo: 0x6a,
} as const

/** etcdserverpb.Maintenance */
export function maintenanceService(context: ServiceContext): Service {
  const { engine, header } = context

  const status = unary((_reader, call) => {
    const writer = freshWriter()
    const { revision } = engine.store
    const { bytes, bytesInUse } = engine.space
    header.write(writer, revision)
    writer.text(statusTags.version, etcdVersion)
    writer.uint(statusTags.dbSize, bytes)
    writer.bigint(statusTags.leader, header.memberId)
    writer.uint(statusTags.raftIndex, revision)
    writer.uint(statusTags.raftTerm, raftTerm)
    writer.uint(statusTags.raftAppliedIndex, revision)
    if (engine.hasNoSpace) writer.text(statusTags.errors, `memberID:${header.memberId} alarm:NOSPACE `)
    writer.uint(statusTags.dbSizeInUse, bytesInUse)
    writer.text(statusTags.storageVersion, storageVersion)
    writer.uint(statusTags.dbSizeQuota, engine.quotaBytes)
    writer.lengthDelimited(statusTags.downgradeInfo, 0)
    call.reply(writer)
  })

  const alarm = unary((reader, call) => {
    const { action, type } = readAlarmRequest(reader)
    const changes = action !== alarmActions.get && type === alarmNoSpace
    const isListed = changes ? engine.hasNoSpace || action === alarmActions.activate : engine.hasNoSpace
    if (changes) engine.setNoSpace(action === alarmActions.activate)
    replyAfterCommit(context, call, (writer) => {
      header.write(writer, engine.store.revision)
      if (isListed && (type === alarmNone || type === alarmNoSpace)) writeAlarm(writer, header.memberId)
    })
  })

  /** Space is given back by and by; this gives back all of it. Its response has no header. */
  const defragment = unary((_reader, call) => engine.tidy(() => call.reply(freshWriter())))

  const moveLeader = unary((reader, call) => {
    if (readTargetId(reader) !== header.memberId) throw etcdError('badLeaderTransferee')
    call.reply(freshWriter())
  })

  const downgrade = unary((reader, call) => {
    const { action, version } = readDowngradeRequest(reader)
    if (action === downgradeCancel) {
      // etcd does not mind that there is nothing to be canceled (etcdserver/v3_server.go, downgradeCancel).
      return replyAfterCommit(context, call, (writer) => {
        header.write(writer, engine.store.revision)
        writer.text(downgradeVersionTag, clusterVersion)
      })
    }
    throw etcdError(/^\d+\.\d+(\.\d+)?$/.test(version) ? 'invalidDowngradeTarget' : 'wrongDowngradeVersion')
  })

  return [
    ['/etcdserverpb.Maintenance/Status', status],
    ['/etcdserverpb.Maintenance/Alarm', alarm],
    ['/etcdserverpb.Maintenance/Defragment', defragment],
    ['/etcdserverpb.Maintenance/MoveLeader', moveLeader],
    ['/etcdserverpb.Maintenance/Downgrade', downgrade],
  ]
}

function readTargetId(reader: MessageReader): bigint {
  let id = 0n
  while (reader.next()) {
    if (reader.field === 1) id = reader.uint64()
    else reader.skip()
  }
  return id
}

function readDowngradeRequest(reader: MessageReader): { action: number; version: string } {
  let action = 0
  let version = ''
  while (reader.next()) {
    if (reader.field === 1) action = reader.number()
    else if (reader.field === 2) version = reader.text()
    else reader.skip()
  }
  return { action, version }
}

function writeAlarm(writer: MessageWriter, memberId: bigint): void {
  writer.lengthDelimited(alarmsTag, bigintFieldSize(memberId) + uintFieldSize(alarmNoSpace))
  writer.bigint(alarmMemberTags.memberId, memberId)
  writer.uint(alarmMemberTags.alarm, alarmNoSpace)
}

function readAlarmRequest(reader: MessageReader): { action: number; type: number } {
  let action = 0
  let type = alarmNone
  while (reader.next()) {
    if (reader.field === 1) action = reader.number()
    else if (reader.field === 3) type = reader.number()
    else reader.skip()
  }
  return { action, type }
}
