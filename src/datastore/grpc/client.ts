import { connect } from 'node:http2'
import { connect as connectSocket } from 'node:net'

import { AppError } from '../../base/errors.ts'
import type { TlsIdentity } from '../../base/http.ts'
import { grpcPrefixBytes } from './protobuf/message-writer.ts'

/** Where an etcd serves. */
export interface EtcdServer {
  /** unix:///PATH, http://HOST:PORT or https://HOST:PORT */
  readonly address: string
  readonly tls?: TlsIdentity | undefined
}

/** `framed` is a message behind its prefix: MessageWriter.framed. */
interface UnaryCall {
  readonly server: EtcdServer
  readonly method: string
  readonly framed: Uint8Array
}

/** One unary call to an etcd server; rejects with an AppError that has the server's words. */
export function callUnary({ server: { address, tls }, method, framed }: UnaryCall): Promise<Buffer> {
  const unixPath = /^unix:\/\/(.*)$/.exec(address)?.[1]
  const session = connect(unixPath === undefined ? address : 'http://localhost', {
    ...tls,
    ...(unixPath !== undefined && { createConnection: () => connectSocket(unixPath) }),
  })
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
  const what = `cannot call ${method.slice(method.lastIndexOf('/') + 1)} at ${address}`
  const refuse = (words: string): void =>
    reject(new AppError(`${what}: ${words}`, { code: 'DATASTORE_REFUSED' }))
  const fail = (cause: unknown): void =>
    reject(
      new AppError(
        what,
        { code: 'DATASTORE_UNREACHABLE', remedy: 'Name an address at which the datastore serves.' },
        { cause },
      ),
    )
  session.on('error', fail)
  const stream = session.request({
    ':method': 'POST',
    ':path': method,
    'content-type': 'application/grpc',
    te: 'trailers',
  })
  const parts: Buffer[] = []
  let status: string | undefined
  const takeStatus = (headers: Record<string, unknown>): void => {
    if (headers['grpc-status'] === undefined) return
    status = String(headers['grpc-status'])
    if (status !== '0') refuse(decoded(String(headers['grpc-message'] ?? `status ${status}`)))
  }
  stream.on('response', takeStatus)
  stream.on('trailers', takeStatus)
  stream.on('data', (part: Buffer) => parts.push(part))
  stream.on('error', fail)
  stream.on('close', () => {
    if (status === '0') resolve(Buffer.concat(parts).subarray(grpcPrefixBytes))
    else fail(new Error('the connection ended before the answer'))
  })
  stream.end(framed)
  return promise.finally(() => session.destroy())
}

/** Of a server that encodes its words in another way, as they are. */
function decoded(words: string): string {
  try {
    return decodeURIComponent(words)
  } catch {
    return words
  }
}
