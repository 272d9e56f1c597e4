import { gunzipSync } from 'node:zlib'

import { describeError, errorCode } from '../../../base/errors.ts'
import { grpcPrefixBytes } from '../protobuf/message-writer.ts'
import { StatusError, codes } from '../status.ts'

const compressedFlag = 1

/** The message of a frame whose flag is not zero. Like grpc-go's server (rpc_util.go), it knows gzip. */
export function decompress(framed: Buffer, encoding: string, maxMessageBytes: number): Buffer {
  if (framed[0] !== compressedFlag) {
    throw new StatusError(codes.internal, `grpc: received unexpected payload format ${framed[0]}`)
  }
  if (encoding === '' || encoding === 'identity') {
    throw new StatusError(codes.internal, 'grpc: compressed flag set with identity or empty encoding')
  }
  if (encoding !== 'gzip') {
    const name = JSON.stringify(encoding)
    throw new StatusError(
      codes.unimplemented,
      `grpc: Decompressor is not installed for grpc-encoding ${name}`,
    )
  }
  try {
    return gunzipSync(framed.subarray(grpcPrefixBytes), { maxOutputLength: maxMessageBytes })
  } catch (thrown) {
    if (errorCode(thrown) !== 'ERR_BUFFER_TOO_LARGE') {
      throw new StatusError(
        codes.internal,
        `grpc: failed to decompress the message: ${describeError(thrown)}`,
      )
    }
    const reason = `received message after decompression larger than max ${maxMessageBytes}`
    throw new StatusError(codes.resourceExhausted, `grpc: ${reason}`)
  }
}
