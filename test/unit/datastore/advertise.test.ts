import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { type Names, chooseClientUrls, readMachine } from '../../../src/datastore/advertise.ts'
import { EtcdClient } from './etcd-client.ts'
import { fieldsOf, runDatastore, temporaryDirectory } from './support.ts'

const machine = { hostname: 'one', addresses: ['10.0.0.5', '2001:db8::5'] }
const everywhere = { host: '0.0.0.0', address: '0.0.0.0', port: 2379 }

function namesOf(...hosts: string[]): Names {
  return { hasName: (host) => hosts.includes(host), names: hosts.filter((host) => /^[a-z]/.test(host)) }
}

test.each<[string, Parameters<typeof chooseClientUrls>[0], string[]]>([
  ['one address', { host: '10.0.0.5', address: '10.0.0.5', port: 1 }, ['http://10.0.0.5:1']],
  ['a name', { host: 'localhost', address: '::1', port: 1 }, ['http://[::1]:1']],
  ['every address of IPv4', everywhere, ['http://10.0.0.5:2379']],
  ['every address', { host: '::', address: '::', port: 1 }, ['http://10.0.0.5:1', 'http://[2001:db8::5]:1']],
  [
    'TLS with the address',
    { ...everywhere, certificate: namesOf('10.0.0.5', 'other') },
    ['https://10.0.0.5:2379'],
  ],
  ['TLS with the host name', { ...everywhere, certificate: namesOf('other', 'one') }, ['https://one:2379']],
  [
    'TLS with another name',
    { ...everywhere, certificate: namesOf('localhost', 'other') },
    ['https://other:2379'],
  ],
  ['TLS for loopback', { ...everywhere, certificate: namesOf('localhost') }, ['https://localhost:2379']],
  [
    'TLS with a name on one address',
    { host: '10.0.0.5', address: '10.0.0.5', port: 1, certificate: namesOf('other') },
    ['https://other:1'],
  ],
  [
    'TLS without a name on one address',
    { host: '10.0.0.5', address: '10.0.0.5', port: 1, certificate: namesOf() },
    ['https://10.0.0.5:1'],
  ],
])('clients of a server with %s go where they can', (_, place, urls) => {
  expect(chooseClientUrls(place, machine)).toEqual(urls)
})

test('a machine without addresses has itself for a client', () => {
  expect(chooseClientUrls(everywhere, { hostname: 'one', addresses: [] })).toEqual(['http://127.0.0.1:2379'])
})

test('where no name fits, nothing is chosen', () => {
  const place = { ...everywhere, certificate: namesOf() }
  expect(() => chooseClientUrls(place, machine)).toThrow('cannot tell clients where to go')
})

test('addresses for containers and of one link are passed over', () => {
  const entry = (address: string, internal = false): NetworkInterfaceInfo[] => [
    { address, internal } as NetworkInterfaceInfo,
  ]
  const entries = {
    lo: entry('127.0.0.1', true),
    cni0: entry('10.244.0.1'),
    eth0: [...entry('10.0.0.5'), ...entry('fe80::1'), ...entry('2001:db8::5')],
  }
  const isBridge = (name: string): boolean => name === 'cni0'
  expect(readMachine(entries, isBridge).addresses).toEqual(['10.0.0.5', '2001:db8::5'])
  // A bridge with a card in it is all that some machines have.
  expect(readMachine({ br0: entry('10.0.0.6') }, () => true).addresses).toEqual(['10.0.0.6'])
})

test('the member list of a server on every address has none of them unspecified', async () => {
  const path = join(temporaryDirectory(), 'state.db')
  const { listening } = await runDatastore({ path, listen: { host: '0.0.0.0', port: 0 } })
  const { port } = new URL(listening)
  const client = new EtcdClient(`http://127.0.0.1:${port}`)
  onTestFinished(() => client.close())
  const [member] = fieldsOf(await client.call('Cluster/MemberList', Buffer.alloc(0))).get(2) ?? []
  const urls = (fieldsOf(member as Buffer).get(4) ?? []).map(String)
  const own = Object.values(networkInterfaces()).flatMap((entries = []) =>
    entries.map(({ address }) => address),
  )
  expect(urls.length).toBeGreaterThan(0)
  for (const url of urls) expect(own).toContain(new URL(url).hostname)
})
