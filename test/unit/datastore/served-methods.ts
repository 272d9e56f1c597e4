import { onTestFinished } from 'vitest'
import { type Logger, silentLogger } from '../../../src/base/logger.ts'
import type { Method } from '../../../src/datastore/grpc/http2/call.ts'
import { MessageWriter } from '../../../src/datastore/grpc/protobuf/message-writer.ts'
import { GrpcServer } from '../../../src/datastore/grpc/server.ts'
import { RawClient } from './support.ts'

/** The server of gRPC with methods of a test's own: what comes in, and what becomes of it, without a datastore. */

export const maxMessageBytes = 2 * 1024 * 1024

export function written(bytes: Uint8Array): MessageWriter {
  const writer = new MessageWriter()
  writer.raw(bytes)
  return writer
}

export const echo: Extract<Method, { kind: 'unary' }> = {
  kind: 'unary',
  handle: (request, call) => call.reply(written(request)),
}

/** Sends back each message, and ends when the client does. */
export const chat: Method = {
  kind: 'streaming',
  open: (call) => ({ message: (request) => call.send(written(request)), halfClose: () => call.end() }),
}

export interface Served {
  readonly listening: string
  /** What the server has logged above info. */
  readonly told: readonly { level: string; message: string; fields: object }[]
  /** Whether a client of its own, on the same connection each time, has its echo. */
  readonly stillServes: () => Promise<boolean>
}

/** A server with these methods and `/a/Echo`, which ends with the test. */
export async function serve(methods: Readonly<Record<string, Method>> = {}): Promise<Served> {
  const told: { level: string; message: string; fields: object }[] = []
  const level = (name: string) => (fields: object, message: string) =>
    void told.push({ level: name, message, fields })
  const log = Object.assign(Object.create(silentLogger) as Logger, {
    warn: level('warn'),
    error: level('error'),
  })
  const server = new GrpcServer({
    methods: new Map(Object.entries({ '/a/Echo': echo, ...methods })),
    maxMessageBytes,
    log,
  })
  const listening = await server.listen({ host: '127.0.0.1', port: 0 })
  onTestFinished(() => server.stop())
  const client = new RawClient(listening)
  const stillServes = async (): Promise<boolean> => {
    const text = Buffer.from('still here')
    return (await client.unary('/a/Echo', text)).equals(text)
  }
  return { listening, told, stillServes }
}
