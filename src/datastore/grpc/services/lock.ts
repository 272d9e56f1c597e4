import type { PutRequest, RangeResult, TxnRequest } from '../../mvcc/requests.ts'
import { type Version, noBytes } from '../../mvcc/version.ts'
import { checkDeleteRange } from '../request-rules.ts'
import { withEtcdErrors } from '../etcd-errors.ts'
import type { MessageReader } from '../protobuf/message-reader.ts'
import { type Service, type ServiceContext, afterCommit, freshWriter, replyAfterCommit } from '../service.ts'
import { StatusError, codes } from '../status.ts'
import {
  DeletionWait,
  clientError,
  clientUnary,
  contenderKey,
  oldestBelow,
  rangeOf,
  sessionLease,
  wasCreatedAt,
} from './concurrency.ts'

const keyTag = 0x12

/** v3lockpb.Lock. etcd: client/v3/concurrency/mutex.go. */
export function lockService(context: ServiceContext): Service {
  const { engine, header } = context

  const lock = clientUnary(context, readLockRequest, ({ name, lease }, call) => {
    const id = sessionLease(engine, lease)
    const key = contenderKey(name, id)
    const { result, createRevision } = contend(context, {
      prefix: `${name}/`,
      key,
      lease: id,
      value: noBytes,
    })
    const locked = (revision: number): void => {
      const writer = freshWriter()
      header.write(writer, revision)
      writer.latin1(keyTag, key)
      call.reply(writer)
    }
    const wait = new DeletionWait({
      engine,
      call,
      prefix: `${name}/`,
      maxCreateRevision: createRevision - 1,
      done: () => {
        const { versions, revision } = engine.range(rangeOf({ key, end: '' }))
        if (versions.length > 0) locked(revision)
        else call.fail(new StatusError(codes.unknown, 'mutex: session is expired'))
      },
    })
    call.onCancel = () => {
      wait.stop()
      // Where nothing can be written now, the key goes with its lease.
      withEtcdErrors(() => engine.deleteRange({ kind: 'delete-range', key, end: '', previousKv: false }))
    }
    afterCommit(context, call, (isCommitted) => {
      if (!isCommitted) return call.fail(clientError('noSpace'))
      if (result.isOldest) locked(result.revision)
      else wait.start()
    })
  })

  const unlock = clientUnary(context, readKey, (key, call) => {
    const request = { kind: 'delete-range' as const, key, end: '', previousKv: false }
    checkDeleteRange(request)
    const { revision } = engine.deleteRange(request)
    replyAfterCommit(context, call, (writer) => header.write(writer, revision))
  })

  return [
    ['/v3lockpb.Lock/Lock', lock],
    ['/v3lockpb.Lock/Unlock', unlock],
  ]
}

/** What a contender finds: its own key's create revision and value, and whether no key is older. */
interface Contention {
  readonly createRevision: number
  readonly value: Uint8Array
  readonly result: { readonly revision: number; readonly isOldest: boolean }
}

/** Creates a contender's key unless it exists, and looks whose key is the oldest. */
export function contend(
  { engine }: ServiceContext,
  { prefix, key, lease, value }: { prefix: string; key: string; lease: bigint; value: Uint8Array },
): Contention {
  const put: PutRequest = {
    kind: 'put',
    key,
    value,
    lease,
    previousKv: false,
    ignoreValue: false,
    ignoreLease: false,
  }
  const oldest = oldestBelow(prefix)
  const request: TxnRequest = {
    kind: 'txn',
    compares: [wasCreatedAt(key, 0)],
    success: [put, oldest],
    failure: [rangeOf({ key, end: '' }), oldest],
  }
  const { succeeded, revision, results } = engine.txn(request)
  const [own, first] = results as readonly RangeResult[]
  const version = succeeded ? undefined : (own?.versions[0] as Version)
  return {
    createRevision: version?.createRevision ?? revision,
    value: version === undefined ? value : engine.store.valueOf(version),
    result: { revision, isOldest: first?.versions[0]?.key === key },
  }
}

function readLockRequest(reader: MessageReader): { name: string; lease: bigint } {
  let name = ''
  let lease = 0n
  while (reader.next()) {
    if (reader.field === 1) name = reader.latin1()
    else if (reader.field === 2) lease = reader.int64()
    else reader.skip()
  }
  return { name, lease }
}

function readKey(reader: MessageReader): string {
  let key = ''
  while (reader.next()) {
    if (reader.field === 1) key = reader.latin1()
    else reader.skip()
  }
  return key
}
