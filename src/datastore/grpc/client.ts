import type * as Http2 from 'node:http2'
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

/** The replies that are asked for here are small. */
const replyLimitBytes = 64 * 1024 * 1024

interface Call {
  /** /SERVICE/METHOD */
  readonly method: string
  /** A message behind its prefix: MessageWriter.framed. */
  readonly framed: Uint8Array
  /** Ends the call, not the connection. */
  readonly signal?: AbortSignal
}

/** One unary call to an etcd server; rejects with an AppError that has the server's words. */
export async function callUnary({ server, ...call }: Call & { server: EtcdServer }): Promise<Buffer> {
  using client = new EtcdClient(server)
  return await client.call(call)
}

/** Unary calls to an etcd server over one connection, which is made by the first of them and anew when it has ended. */
export class EtcdClient implements Disposable {
  readonly #server: EtcdServer
  #session: Http2.ClientHttp2Session | undefined

  constructor(server: EtcdServer) {
    this.#server = server
  }

  /**
   * The reply's message. Rejects with DATASTORE_REFUSED and the server's words, `status` the code of gRPC, and with
   * DATASTORE_UNREACHABLE when there was no whole answer, the reason of `signal` among its causes.
   */
  async call({ method, framed, signal }: Call): Promise<Buffer> {
    // Not for who never calls: it takes 9 ms and 6 MB of a start.
    const http2 = await import('node:http2')
    const stream = this.#connected(http2).request({
      ':method': 'POST',
      ':path': method,
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    const what = `cannot call ${method.slice(method.lastIndexOf('/') + 1)} at ${this.#server.address}`
    const giveUp = () => stream.close(http2.constants.NGHTTP2_CANCEL)
    signal?.addEventListener('abort', giveUp)
    if (signal?.aborted) giveUp()
    let trailers: Record<string, unknown> = {}
    const takeStatus = (headers: Record<string, unknown>): void => {
      if (headers['grpc-status'] !== undefined) trailers = headers
    }
    stream.on('response', takeStatus)
    stream.on('trailers', takeStatus)
    const parts: Buffer[] = []
    let bytes = 0
    let failure: unknown
    try {
      stream.end(framed)
      for await (const part of stream as AsyncIterable<Buffer>) {
        bytes += part.length
        if (bytes > replyLimitBytes) throw new Error(`the answer has more than ${replyLimitBytes} bytes`)
        parts.push(part)
      }
    } catch (error) {
      failure = error
    } finally {
      signal?.removeEventListener('abort', giveUp)
      stream.destroy()
    }
    const { 'grpc-status': status, 'grpc-message': words = `status ${String(status)}` } = trailers
    if (status === '0' && failure === undefined) return Buffer.concat(parts).subarray(grpcPrefixBytes)
    if (status !== undefined && status !== '0') {
      const reason = decoded(String(words))
      throw new AppError(`${what}: ${reason}`, { code: 'DATASTORE_REFUSED', status: Number(status) })
    }
    const remedy = 'Name an address at which the datastore serves.'
    const cause = signal?.aborted
      ? signal.reason
      : (failure ?? new Error('the connection ended before the answer'))
    throw new AppError(what, { code: 'DATASTORE_UNREACHABLE', remedy }, { cause })
  }

  [Symbol.dispose](): void {
    this.#session?.destroy()
  }

  #connected({ connect }: typeof Http2): Http2.ClientHttp2Session {
    const former = this.#session
    if (former !== undefined && !former.closed && !former.destroyed) return former
    const { address, tls } = this.#server
    const unixPath = /^unix:\/\/(.*)$/.exec(address)?.[1]
    const session = connect(unixPath === undefined ? address : 'http://localhost', {
      ...tls,
      ...(unixPath !== undefined && { createConnection: () => connectSocket(unixPath) }),
    })
    // Its streams have their own ears.
    session.on('error', () => {})
    this.#session = session
    return session
  }
}

/** Of a server that encodes its words in another way, as they are. */
function decoded(words: string): string {
  try {
    return decodeURIComponent(words)
  } catch {
    return words
  }
}
