import { expect, test } from 'vitest'
import { crc32c } from '../../../src/datastore/grpc/crc32c.ts'

test.each([
  ['', 0],
  // RFC 3720, appendix B.4.
  ['\0'.repeat(32), 0x8a9136aa],
  ['\u00ff'.repeat(32), 0x62a8ab43],
  [String.fromCharCode(...Array.from({ length: 32 }).keys()), 0x46dd794e],
  ['123456789', 0xe3069283],
])('the CRC32C of %j', (text, expected) => {
  const bytes = Buffer.from(text, 'latin1')
  expect(crc32c(bytes)).toBe(expected)
  for (let at = 0; at < bytes.length; at++) {
    expect(crc32c(bytes.subarray(at), crc32c(bytes.subarray(0, at)))).toBe(expected)
  }
})
