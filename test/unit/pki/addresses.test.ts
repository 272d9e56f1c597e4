import { expect, test } from 'vitest'
import { addressBytes, firstAddress } from '../../../src/pki/addresses.ts'

test.each([
  ['192.0.2.255', 'c00002ff'],
  ['::', '00000000000000000000000000000000'],
  ['::1', '00000000000000000000000000000001'],
  ['fe80::', 'fe800000000000000000000000000000'],
  ['2001:db8::7:8', '20010db8000000000000000000070008'],
  ['1:2:3:4:5:6:7:8', '00010002000300040005000600070008'],
  ['::ffff:192.0.2.1', '00000000000000000000ffffc0000201'],
  ['64:ff9b::192.0.2.33', '0064ff9b0000000000000000c0000221'],
])('the bytes of %s', (address, hex) => {
  expect(addressBytes(address)?.toString('hex')).toBe(hex)
})

test.each(['example.org', '1.2.3', '256.0.0.1', '', ':::', 'fe80::1%eth0', '1:2'])(
  '%j is no address',
  (text) => {
    expect(addressBytes(text)).toBeUndefined()
  },
)

test.each([
  ['10.96.0.0/12', '10.96.0.1'],
  ['10.97.3.4/12', '10.96.0.1'],
  ['172.20.255.252/30', '172.20.255.253'],
  ['fd00:96::/112', 'fd00:96::1'],
])('the first address of %s is %s', (cidr, address) => {
  expect(firstAddress(cidr)).toBe(address)
})
