import { codes, type StatusError } from '../status.ts'

/** RFC 7541: ":status: 200" is entry 8 of the static table. */
const statusOk = 0x88
const indexedField = 0x80
const literalWithIndexing = 0x40
const literalWithoutIndexing = 0x00
const dynamicTableStart = 62
const tableSizeZero = 0x20
const contentTypeIndex = 31
const longestPrefixInteger = 127
/** An error's message is cut to this, percent-encoded: its block fits into one frame of any peer's. */
const messageLimitBytes = 4096
/** What the other fields of a failure count in a header list (RFC 9113, section 6.5.2), and a margin. */
const otherFieldsBytes = 256

const contentType = string('application/grpc')
const grpcStatusOk = Buffer.concat([string('grpc-status'), string(String(codes.ok))])

/**
 * Encodes the header blocks of gRPC's replies. The two that nearly every reply has (its headers, and
 * the trailers of a success) enter the peer's dynamic table with their first use and cost one or two
 * bytes from then on. Blocks must be written in the order in which they were encoded.
 */
export class ResponseHeaders {
  #usesTable = true
  #tableShrinks = false
  #hasContentType = false
  #hasGrpcStatus = false
  #messageLimitBytes = messageLimitBytes

  /** The peer's SETTINGS_HEADER_TABLE_SIZE; our two entries fit into the default of 4096 alone. */
  limitTable(sizeBytes: number): void {
    if (sizeBytes >= 4096 || !this.#usesTable) return
    this.#usesTable = false
    // RFC 7541, section 4.2: a smaller table is confirmed with the next block, even an empty one.
    this.#tableShrinks = true
  }

  /** The peer's SETTINGS_MAX_HEADER_LIST_SIZE; our other fields are as few as they can be. */
  limitList(sizeBytes: number): void {
    this.#messageLimitBytes = Math.min(messageLimitBytes, Math.max(0, sizeBytes - otherFieldsBytes))
  }

  initial(): Buffer {
    if (!this.#usesTable)
      return this.#plain([statusOk, literalWithoutIndexing | 0x0f, contentTypeIndex - 0x0f], contentType)
    if (this.#hasContentType) {
      return Buffer.of(statusOk, indexedField | (dynamicTableStart + (this.#hasGrpcStatus ? 1 : 0)))
    }
    // An entry that is added moves the others up: content-type is first or grpc-status is not there yet.
    this.#hasContentType = true
    return this.#plain([statusOk, literalWithIndexing | contentTypeIndex], contentType)
  }

  successTrailers(): Buffer {
    if (!this.#usesTable) return this.#plain([literalWithoutIndexing], grpcStatusOk)
    if (this.#hasGrpcStatus) return indexedGrpcStatus
    this.#hasGrpcStatus = true
    return this.#plain([literalWithIndexing], grpcStatusOk)
  }

  failureTrailers(error: StatusError): Buffer {
    return this.#plain(
      [literalWithoutIndexing],
      string('grpc-status'),
      string(String(error.code)),
      Buffer.of(literalWithoutIndexing),
      string('grpc-message'),
      string(percentEncode(error.message, this.#messageLimitBytes)),
    )
  }

  /** A reply that is nothing but its failure: headers and trailers in one block. */
  trailersOnly(error: StatusError): Buffer {
    return Buffer.concat([
      this.#plain([statusOk, literalWithoutIndexing | 0x0f, contentTypeIndex - 0x0f], contentType),
      this.failureTrailers(error),
    ])
  }

  /** A plain HTTP answer without a body, for requests that are not gRPC. */
  httpStatus(status: number): Buffer {
    const statusIndex = 8
    return this.#plain([literalWithoutIndexing | statusIndex], string(String(status)))
  }

  #plain(prefix: number[], ...rest: Buffer[]): Buffer {
    const update = this.#tableShrinks ? [tableSizeZero] : []
    this.#tableShrinks = false
    return Buffer.concat([Buffer.from([...update, ...prefix]), ...rest])
  }
}

const indexedGrpcStatus = Buffer.of(indexedField | dynamicTableStart)

/** A string without Huffman coding: RFC 7541, section 5.2. */
function string(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  return Buffer.concat([lengthPrefix(bytes.length), bytes])
}

function lengthPrefix(length: number): Buffer {
  if (length < longestPrefixInteger) return Buffer.of(length)
  const bytes = [longestPrefixInteger]
  let rest = length - longestPrefixInteger
  while (rest >= 128) {
    bytes.push((rest % 128) + 128)
    rest = Math.floor(rest / 128)
  }
  bytes.push(rest)
  return Buffer.from(bytes)
}

/**
 * gRPC's encoding of a status message: printable ASCII but "%" as itself, all else as %XX of its UTF-8. What is beyond
 * the limit is left out, by whole characters: a message may have in it what a client has sent.
 */
function percentEncode(message: string, limitBytes: number): string {
  let text = ''
  for (const character of message) {
    const encoded = isPlain(character) ? character : percentEncodeBytes(character)
    if (text.length + encoded.length > limitBytes) break
    text += encoded
  }
  return text
}

function isPlain(character: string): boolean {
  return character >= ' ' && character <= '~' && character !== '%'
}

function percentEncodeBytes(character: string): string {
  let text = ''
  for (const byte of Buffer.from(character)) text += `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  return text
}
