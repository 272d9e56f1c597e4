import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { HostFiles } from '../../../../src/node/facts/host-files.ts'
import { applySysctls, ipv6Fault, networkSysctls } from '../../../../src/node/render/sysctls.ts'
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

test('each family has its own in a cluster of both', () => {
  const files = new HostFiles(hostTree({}))
  expect(networkSysctls('10.244.0.0/16,fd00::/56', files).map(({ name }) => name)).toEqual([
    'net.ipv4.ip_forward',
    'net.bridge.bridge-nf-call-iptables',
    'net.ipv6.conf.all.forwarding',
    'net.bridge.bridge-nf-call-ip6tables',
  ])
})

describe('a machine that heeds routers', () => {
  const conf = '/proc/sys/net/ipv6/conf'
  const names = ['eth0', 'eth0.7', 'quiet', 'port', 'docker0', 'lo', 'stranger', 'all', 'default']
  const tree = {
    ...Object.fromEntries(
      names.map((name) => [`${conf}/${name}/accept_ra`, name === 'quiet' ? '0\n' : '1\n']),
    ),
    [forward]: '1\n',
    [`${conf}/all/forwarding`]: '0\n',
    ...Object.fromEntries(
      ['eth0', 'eth0.7', 'quiet', 'port', 'docker0', 'lo'].map((name) => [
        `/sys/class/net/${name}/type`,
        '1\n',
      ]),
    ),
    '/sys/class/net/port/master/x': '',
    '/sys/class/net/docker0/bridge/x': '',
  }
  const read = (root: string, name: string) =>
    readFileSync(join(root, `${conf}/${name}/accept_ra`), 'utf8').trim()

  test('goes on to when it forwards, where it is no bridge of containers', () => {
    const root = hostTree(tree)
    applySysctls(networkSysctls('10.244.0.0/16,fd00::/56', new HostFiles(root)), { root })
    expect(names.map((name) => read(root, name))).toEqual(['2', '2', '0', '1', '1', '1', '1', '1', '1'])
  })

  test('is left as it is where it has forwarded before, and in a cluster of IPv4', () => {
    const root = hostTree({ ...tree, [`${conf}/all/forwarding`]: '1\n' })
    applySysctls(networkSysctls('10.244.0.0/16,fd00::/56', new HostFiles(root)), { root })
    applySysctls(networkSysctls('10.244.0.0/16', new HostFiles(hostTree(tree))), { root })
    expect(read(root, 'eth0')).toBe('1')
  })
})

test('IPv6 that is turned off is told by how', () => {
  const fault = (files: Readonly<Record<string, string>>) => ipv6Fault(new HostFiles(hostTree(files)))
  const path = '/proc/sys/net/ipv6/conf/default/disable_ipv6'
  expect(fault({})).toContain('ipv6.disable=1')
  expect(fault({ [path]: '1\n' })).toContain('net.ipv6.conf.default.disable_ipv6 is 1')
  expect(fault({ [path]: '0\n' })).toBeUndefined()
})
