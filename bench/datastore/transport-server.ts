/**
 * A server that answers every KV.Range with the same key of 1.5 kB, over one of three transports: what remains is the
 * transport's own cost.   node transport-server.ts grpc-js|node-http2|own
 */
import http2, { type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo } from 'node:net'
import * as grpc from '@grpc/grpc-js'
import { silentLogger } from '../../src/base/logger.ts'
import { GrpcServer } from '../../src/datastore/grpc/server.ts'
import { MessageWriter } from '../../src/datastore/grpc/protobuf/message-writer.ts'

const path = '/etcdserverpb.KV/Range'
const valueBytes = 1500

/** RangeResponse: a header (1) with a revision (3), one KeyValue (2) with key (1), revisions (2, 3), version (4) and value (5); count (4). */
function writeReply(writer: MessageWriter): MessageWriter {
  const kv = new MessageWriter()
  kv.latin1(0x0a, '/registry/pods/namespace-000/pod-00000000')
  for (const tag of [0x10, 0x18, 0x20]) kv.uint(tag, 1)
  kv.bytes(0x2a, Buffer.alloc(valueBytes, 'v'))
  writer.presentBytes(0x0a, Buffer.of(0x18, 1))
  writer.presentBytes(0x12, kv.bytesWritten())
  writer.uint(0x20, 1)
  return writer
}
const reply = Buffer.from(writeReply(new MessageWriter()).bytesWritten())
const framed = Buffer.from(writeReply(new MessageWriter()).framed())

const transports: Record<string, () => Promise<number>> = {
  /** Raw bytes in and out: no protobuf library has a part in it. */
  async 'grpc-js'() {
    const server = new grpc.Server()
    const bytes = (value: Buffer): Buffer => value
    const range = {
      path,
      requestStream: false,
      responseStream: false,
      requestSerialize: bytes,
      requestDeserialize: bytes,
      responseSerialize: bytes,
      responseDeserialize: bytes,
    }
    server.addService(
      { range },
      { range: (_call: unknown, done: (error: null, value: Buffer) => void) => done(null, reply) },
    )
    return new Promise((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) =>
        error === null ? resolve(port) : reject(error),
      )
    })
  },
  async 'node-http2'() {
    const server = http2.createServer({ settings: { maxConcurrentStreams: 100_000 } })
    server.on('stream', (stream: ServerHttp2Stream) => {
      stream.resume()
      stream.on('end', () => {
        stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
        stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
        stream.end(framed)
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return (server.address() as AddressInfo).port
  },
  async own() {
    const writer = new MessageWriter()
    const methods = new Map([
      [
        path,
        {
          kind: 'unary' as const,
          handle: (_request: Buffer, call: { reply(message: MessageWriter): void }) =>
            call.reply(writeReplyAgain(writer.reset())),
        },
      ],
    ])
    const server = new GrpcServer({ methods, maxMessageBytes: 2 * 1024 * 1024, log: silentLogger })
    const listening = await server.listen({ host: '127.0.0.1', port: 0 })
    return Number(new URL(listening).port)
  },
}

function writeReplyAgain(writer: MessageWriter): MessageWriter {
  writer.raw(reply)
  return writer
}

const start = transports[process.argv[2] ?? '']
if (start === undefined) {
  console.error(`usage: transport-server.ts ${Object.keys(transports).join('|')}`)
  process.exit(2)
}
// An orderly exit writes the profile, where one was asked for.
process.on('SIGINT', () => process.exit(0))
console.log(await start())
