/** The Castagnoli polynomial, reflected: RFC 3720, appendix B.4. */
const polynomial = 0x82f63b78

/** Eight bytes are taken at a time, each through a table of its own. */
const tables: readonly Uint32Array[] = makeTables()

/** The CRC32C of what `crc` stands for, followed by `bytes`; begin with 0. */
export function crc32c(bytes: Uint8Array, crc = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ]
  let rest = ~crc
  let at = 0
  const b = bytes as unknown as number[]
  for (const end = bytes.length - 7; at < end; at += 8) {
    const low =
      rest ^
      ((b[at] as number) |
        ((b[at + 1] as number) << 8) |
        ((b[at + 2] as number) << 16) |
        ((b[at + 3] as number) << 24))
    rest =
      (t7[low & 0xff] as number) ^
      (t6[(low >>> 8) & 0xff] as number) ^
      (t5[(low >>> 16) & 0xff] as number) ^
      (t4[low >>> 24] as number) ^
      (t3[b[at + 4] as number] as number) ^
      (t2[b[at + 5] as number] as number) ^
      (t1[b[at + 6] as number] as number) ^
      (t0[b[at + 7] as number] as number)
  }
  for (; at < bytes.length; at++) rest = (t0[(rest ^ (b[at] as number)) & 0xff] as number) ^ (rest >>> 8)
  return ~rest >>> 0
}

function makeTables(): Uint32Array[] {
  const first = Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte
    for (let bit = 0; bit < 8; bit++) value = (value & 1) === 1 ? (value >>> 1) ^ polynomial : value >>> 1
    return value
  })
  const all = [first]
  for (let place = 1; place < 8; place++) {
    const before = all[place - 1] as Uint32Array
    all.push(before.map((value) => (first[value & 0xff] as number) ^ (value >>> 8)))
  }
  return all
}
