import type { MessageWriter } from '../protobuf/message-writer.ts'
import type { StatusError } from '../status.ts'

/** The server's side of one gRPC call. After `end`, `fail` or a cancellation all methods do nothing. */
export interface Call {
  /** False once the call has ended or its client has gone. */
  readonly isOpen: boolean
  /** What was sent but could not be written yet, because the client's window or its socket is full. */
  readonly queuedBytes: number
  /** Called when the queue has become empty again after it was not; never from within `send`. */
  onDrain: (() => void) | undefined
  /** Called once when the client resets the call or its connection is lost. */
  onCancel: (() => void) | undefined
  /** Sends one message; the writer may be used again at once. */
  send(message: MessageWriter): void
  end(): void
  /** Also in the middle of a reply in parts, which the client then drops. */
  fail(error: StatusError): void
  /** The same for whatever was thrown: what was not meant for the client is logged instead. */
  failWith(thrown: unknown): void
  /** `send` and `end` in one. */
  reply(message: MessageWriter): void
  /** The same for a large message, of which no more is encoded than there is room for. */
  replyInParts(message: MessageParts): void
}

/** One message that is encoded part by part. */
export interface MessageParts {
  /** Of the whole message. */
  readonly messageBytes: number
  /** What the parts that are not written yet keep in memory. */
  readonly heldBytes: number
  /** Writes the next part, of some hundred kilobytes; false after the last one. */
  write(writer: MessageWriter): boolean
  /** Called once, when no more parts are wanted. */
  release(): void
}

/** What a call of a client that streams its requests is served by. */
export interface StreamListener {
  /** The bytes are a view that is valid during this call only. */
  message(request: Buffer): void
  /** The client has sent its last message. */
  halfClose(): void
}

/** How a method is served. `request` is a view that is valid during `handle` only. */
export type Method = (
  | { readonly kind: 'unary'; handle(request: Buffer, call: Call): void }
  | { readonly kind: 'streaming'; open(call: Call): StreamListener }
) & {
  /** How many calls have ended with each code; they are counted where this is given. */
  readonly handled?: Float64Array
}

/** Methods by their path: "/etcdserverpb.KV/Range". */
export type Methods = ReadonlyMap<string, Method>
