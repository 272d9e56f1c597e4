import { describe, expect, test } from 'vitest'
import { HpackDecoder } from '../../../src/datastore/grpc/http2/hpack-decoder.ts'

function decode(decoder: HpackDecoder, hex: string): string[] {
  const block = Buffer.from(hex.replaceAll(' ', ''), 'hex')
  const fields: string[] = []
  decoder.decode(block, 0, block.length, (name, value) => fields.push(`${name}: ${value}`))
  return fields
}

describe('the requests of RFC 7541', () => {
  test('without Huffman coding (C.3)', () => {
    const decoder = new HpackDecoder()
    expect(decode(decoder, '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d')).toEqual([
      ':method: GET',
      ':scheme: http',
      ':path: /',
      ':authority: www.example.com',
    ])
    expect(decode(decoder, '8286 84be 5808 6e6f 2d63 6163 6865')).toContain('cache-control: no-cache')
  })

  test('with Huffman coding and entries of the requests before (C.4)', () => {
    const decoder = new HpackDecoder()
    decode(decoder, '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff')
    decode(decoder, '8286 84be 5886 a8eb 1064 9cbf')
    expect(decode(decoder, '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf')).toEqual([
      ':method: GET',
      ':scheme: https',
      ':path: /index.html',
      ':authority: www.example.com',
      'custom-key: custom-value',
    ])
  })
})

test('entries are evicted when the table is full, and the newest has the lowest index', () => {
  const decoder = new HpackDecoder()
  // A table of 80 bytes has room for two entries of 34: "a: a" and "b: b", but not for a third.
  decode(decoder, '3f31 4001 6101 61 4001 6201 62 4001 6301 63')
  expect(decode(decoder, 'be bf')).toEqual(['c: c', 'b: b'])
  expect(() => decode(decoder, 'c0')).toThrow('index outside of the tables')
})

test.each([
  ['index 0', '80', 'index outside of the tables'],
  ['an index behind the tables', 'ff80 01', 'index outside of the tables'],
  ['an integer without end', 'ffff ffff ffff ffff ff', 'integer too large'],
  ['a string that is longer than the block', '4005 6162', 'string too long'],
  ['a block that ends in an integer', '7f', 'truncated header block'],
  ['a table larger than the setting', '3fe2 1f', 'table size beyond the setting'],
  ['Huffman padding of a whole byte', '4001 6182 1fff', 'malformed Huffman string'],
  ['Huffman padding of zeros', '4001 6181 18', 'malformed Huffman string'],
  ['the symbol that ends no string', '4001 6184 ffff ffff', 'malformed Huffman string'],
])('%s is refused', (_, hex, message) => {
  expect(() => decode(new HpackDecoder(), hex)).toThrow(message)
})
