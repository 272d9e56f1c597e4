import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { applySysctls, networkSysctls } from '../../../../src/node/render/sysctls.ts'
import { hostTree } from '../host-tree.ts'

const forward = '/proc/sys/net/ipv4/ip_forward'
const bridge = '/proc/sys/net/bridge/bridge-nf-call-iptables'

test('what differs is written', () => {
  const root = hostTree({ [forward]: '0\n', [bridge]: '0\n' })
  applySysctls(networkSysctls('10.244.0.0/16'), { root })
  expect([forward, bridge].map((path) => readFileSync(join(root, path), 'utf8'))).toEqual(['1', '1'])
})

test('what is right already is left alone, writable or not', () => {
  const root = hostTree({ [forward]: '1\n', [bridge]: '1\n' })
  applySysctls(networkSysctls('10.244.0.0/16'), { root })
  expect(readFileSync(join(root, forward), 'utf8')).toBe('1\n')
})

test('a setting of a module that is not loaded is passed over', () => {
  const root = hostTree({ [forward]: '0\n' })
  applySysctls(networkSysctls('10.244.0.0/16'), { root })
  expect(readFileSync(join(root, forward), 'utf8')).toBe('1')
})

test('IPv6 is forwarded in a cluster that has it', () => {
  expect(networkSysctls('fd00::/56').map(({ name }) => name)).toContain('net.ipv6.conf.all.forwarding')
  expect(networkSysctls('10.244.0.0/16').map(({ name }) => name)).not.toContain(
    'net.ipv6.conf.all.forwarding',
  )
})

test('a required one that cannot be set is an error with its remedy', () => {
  // The file's place is taken by a directory, which cannot be written even by root.
  const root = hostTree({ [`${forward}/x`]: '' })
  expect(() => applySysctls(networkSysctls('10.244.0.0/16'), { root })).toThrow(
    'cannot set net.ipv4.ip_forward to 1',
  )
})
