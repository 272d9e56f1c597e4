import { decodeHuffman } from './huffman.ts'
import { staticTable } from './hpack-tables.ts'
import { Http2Error, errorCodes } from './protocol.ts'

/** What a decoder calls for each field of a header block. */
type FieldSink = (name: string, value: string) => void

/** Our SETTINGS_HEADER_TABLE_SIZE, which is the protocol's default, in RFC 7541's bytes. */
const tableSizeLimit = 4096
/** RFC 7541, section 4.1: what an entry costs beside its name and value. */
const entryOverheadBytes = 32
/** No field of a gRPC request needs more; it bounds what one connection can make us allocate. */
const stringLimitBytes = 64 * 1024

interface Entry {
  readonly name: string
  readonly value: string
}

const staticEntries: readonly Entry[] = staticTable.map(([name, value]) => ({ name, value }))

/** The state of one direction of one connection: RFC 7541, decoding only. */
export class HpackDecoder {
  /** Newest first would be RFC 7541's order; kept newest last, so that adding is a push. */
  readonly #entries: Entry[] = []
  #tableBytes = 0
  #tableLimitBytes = tableSizeLimit
  #input: Buffer = Buffer.alloc(0)
  #at = 0
  #end = 0

  /** Decodes one whole header block. Any error is a connection error: the state is lost. */
  decode(input: Buffer, start: number, end: number, sink: FieldSink): void {
    this.#input = input
    this.#at = start
    this.#end = end
    while (this.#at < this.#end) {
      const first = input[this.#at] as number
      if (first >= 0x80) {
        const entry = this.#entry(this.#integer(7))
        sink(entry.name, entry.value)
      } else if (first >= 0x40) {
        const entry = this.#literal(6)
        this.#add(entry)
        sink(entry.name, entry.value)
      } else if (first >= 0x20) {
        this.#resize(this.#integer(5))
      } else {
        const entry = this.#literal(4)
        sink(entry.name, entry.value)
      }
    }
  }

  #literal(prefixBits: number): Entry {
    const nameIndex = this.#integer(prefixBits)
    const name = nameIndex === 0 ? this.#string() : this.#entry(nameIndex).name
    return { name, value: this.#string() }
  }

  #entry(index: number): Entry {
    const entry =
      index <= staticEntries.length
        ? staticEntries[index - 1]
        : this.#entries[this.#entries.length - (index - staticEntries.length)]
    if (entry === undefined) throw compressionError('index outside of the tables')
    return entry
  }

  #add(entry: Entry): void {
    this.#entries.push(entry)
    this.#tableBytes += entryBytes(entry)
    this.#evict()
  }

  #resize(limitBytes: number): void {
    if (limitBytes > tableSizeLimit) throw compressionError('table size beyond the setting')
    this.#tableLimitBytes = limitBytes
    this.#evict()
  }

  #evict(): void {
    let count = 0
    while (this.#tableBytes > this.#tableLimitBytes) {
      this.#tableBytes -= entryBytes(this.#entries[count] as Entry)
      count++
    }
    if (count > 0) this.#entries.splice(0, count)
  }

  /** RFC 7541, section 5.1. */
  #integer(prefixBits: number): number {
    const mask = (1 << prefixBits) - 1
    let value = this.#byte() & mask
    if (value < mask) return value
    for (let scale = 1; ; scale *= 128) {
      if (scale > 2 ** 28) throw compressionError('integer too large')
      const byte = this.#byte()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
    }
  }

  /** RFC 7541, section 5.2. */
  #string(): string {
    const isHuffman = ((this.#input[this.#at] as number) & 0x80) !== 0
    const length = this.#integer(7)
    const start = this.#at
    const end = start + length
    if (end > this.#end || length > stringLimitBytes) throw compressionError('string too long')
    this.#at = end
    return isHuffman ? decodeHuffman(this.#input, start, end) : this.#input.toString('latin1', start, end)
  }

  #byte(): number {
    if (this.#at >= this.#end) throw compressionError('truncated header block')
    return this.#input[this.#at++] as number
  }
}

function entryBytes(entry: Entry): number {
  return entry.name.length + entry.value.length + entryOverheadBytes
}

function compressionError(message: string): Http2Error {
  return new Http2Error(errorCodes.compressionError, message)
}
