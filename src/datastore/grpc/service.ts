import type { Engine } from '../mvcc/engine.ts'
import { MvccError } from '../mvcc/errors.ts'
import { etcdError, toStatus, withEtcdErrors } from './etcd-errors.ts'
import type { Call, Method, StreamListener } from './http2/call.ts'
import type { ResponseHeader } from './messages/header.ts'
import { MessageReader } from './protobuf/message-reader.ts'
import { MessageWriter } from './protobuf/message-writer.ts'
import type { StatusError } from './status.ts'

/** What the services share. */
export interface ServiceContext {
  readonly engine: Engine
  readonly header: ResponseHeader
  readonly options: ServiceOptions
}

interface ServiceOptions {
  /** A larger request that would write is refused. */
  readonly maxRequestBytes: number
  readonly maxTxnOperations: number
  readonly progressNotifyIntervalMs: number
  /** What clients may dial: MemberList. */
  readonly clientUrls: () => readonly string[]
}

export type Service = readonly (readonly [path: string, method: Method])[]

const shared = new MessageWriter()

/** The writer for a message that is sent before anything else is written. */
export function freshWriter(): MessageWriter {
  return shared.reset()
}

/** A method with one request and one or more responses. */
export function unary(handle: (request: MessageReader, call: Call, requestBytes: number) => void): Method {
  return {
    kind: 'unary',
    handle: (request, call) => withEtcdErrors(() => handle(new MessageReader(request), call, request.length)),
  }
}

/** A method that looks at the newest state, of which not all may be on disk yet; its errors wait for that, too. */
export function writing(
  context: ServiceContext,
  handle: (request: MessageReader, call: Call, requestBytes: number) => void,
): Method {
  return unary((reader, call, requestBytes) => {
    try {
      handle(reader, call, requestBytes)
    } catch (thrown) {
      if (!(thrown instanceof MvccError)) throw thrown
      failAfterCommit(context, call, toStatus(thrown), etcdError('noSpace'))
    }
  })
}

/** A method whose client streams its requests. */
export function streaming(
  open: (call: Call) => { message(request: MessageReader): void; halfClose(): void },
): Method {
  return {
    kind: 'streaming',
    open: (call): StreamListener => {
      const listener = open(call)
      return {
        message: (request) => withEtcdErrors(() => listener.message(new MessageReader(request))),
        halfClose: () => listener.halfClose(),
      }
    },
  }
}

/**
 * Calls back when the disk has everything that was written so far, if somebody still wants to know. An error in it ends
 * the call: others wait for the same commit.
 */
export function afterCommit(
  { engine }: ServiceContext,
  call: Call,
  tell: (isCommitted: boolean) => void,
): void {
  engine.afterCommit((isCommitted) => {
    if (!call.isOpen) return
    try {
      withEtcdErrors(() => tell(isCommitted))
    } catch (thrown) {
      // The write is on disk; what it replaced or read cannot be told.
      call.failWith(thrown)
    }
  })
}

/**
 * Tells an error when what it rests on is on disk: that a lease is gone, say, must not be told while a power cut could
 * bring it back. `lost` is told when it never got there.
 */
export function failAfterCommit(
  context: ServiceContext,
  call: Call,
  error: StatusError,
  lost: StatusError,
): void {
  afterCommit(context, call, (isCommitted) => call.fail(isCommitted ? error : lost))
}

/** Replies when the disk has everything that was written so far: `write` writes the message then. */
export function replyAfterCommit(
  context: ServiceContext,
  call: Call,
  write: (writer: MessageWriter) => MessageWriter | void,
): void {
  afterCommit(context, call, (isCommitted) => {
    if (!isCommitted) return call.fail(etcdError('noSpace'))
    const writer = freshWriter()
    write(writer)
    call.reply(writer)
  })
}
