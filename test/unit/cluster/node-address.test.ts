import { mkdirSync, mkdtempDisposableSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type NetworkInterfaceInfo, tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { prepareCredentials } from '../../../src/cluster/credentials.ts'
import { addressesOf, holdWhileAway, settleNodeAddress } from '../../../src/cluster/node-address.ts'
import { follow, SettledChange } from '../../../src/cluster/tasks/node-address.ts'
import { loadConfig } from '../../../src/config/load.ts'
import { paths as pathsOf } from '../../../src/config/paths.ts'
import { loopbackAddresses } from '../../../src/node/facts/addresses.ts'
import { readLastOtherAddress } from '../../../src/node/facts/node-record.ts'
import type { Network } from '../../../src/node/facts/node-address.ts'

const away: Network = {
  addresses: [{ interface: 'cni0', address: '10.244.0.1', kind: 'bridge' }],
  routeSource: undefined,
  last: undefined,
}
const there: Network = {
  addresses: [{ interface: 'eth0', address: '192.0.2.7', kind: 'plain' }],
  routeSource: '192.0.2.7',
  last: undefined,
}

async function machine({ nodeIp }: { nodeIp?: string } = {}) {
  const directory = mkdtempDisposableSync(`${tmpdir()}/k8s-address-`)
  onTestFinished(() => directory.remove())
  const flags = Object.entries({ 'data-dir': directory.path, 'node-ip': nodeIp, 'node-name': 'one' })
  const config = await loadConfig({
    flags: flags.flatMap(([name, text]) => (text === undefined ? [] : [{ name, text }])),
    environment: {},
  })
  const told: string[] = []
  const nothing = () => {}
  const notify = { extendTimeout: nothing, status: (line: string) => void told.push(line) }
  const paths = pathsOf(config)
  return { config, paths, told, options: { config, paths, notify, log: silentLogger } }
}

test('the address is remembered, and taken by a start without a network', async () => {
  const { paths, options } = await machine()
  const { signal } = new AbortController()
  const looks: (string | undefined)[] = []
  const settle = (network: Network) =>
    settleNodeAddress({
      ...options,
      signal,
      look: (last) => {
        looks.push(last)
        return Promise.resolve({ ...network, last })
      },
    })
  expect(await settle(there)).toEqual({ address: '192.0.2.7', isPresent: true, former: undefined })
  expect(JSON.parse(readFileSync(paths.nodeRecord, 'utf8'))).toMatchObject({ address: '192.0.2.7' })
  expect(await settle(away)).toEqual({
    address: '192.0.2.7',
    isPresent: false,
    former: '192.0.2.7',
  })
  expect(looks).toEqual([undefined, '192.0.2.7'])
})

test('a machine that never had one waits until there is one, and says so', async () => {
  const { told, options } = await machine()
  const { signal } = new AbortController()
  const networks = [away, there]
  const look = () => Promise.resolve(networks.shift() ?? expect.fail('looked once too often'))
  expect(await settleNodeAddress({ ...options, signal, look, intervalMs: 1 })).toMatchObject({
    address: '192.0.2.7',
    isPresent: true,
  })
  expect(told).toEqual([
    'waiting for an address of this machine: 10.244.0.1 on cni0 lies in cluster-cidr 10.244.0.0/16',
  ])
})

test('the wait ends with the daemon', async () => {
  const { options } = await machine()
  const stop = new AbortController()
  const look = () => {
    stop.abort()
    return Promise.resolve(away)
  }
  expect(await settleNodeAddress({ ...options, signal: stop.signal, look })).toBeUndefined()
})

test('what a user wrote is not remembered while no interface has it', async () => {
  const { paths, options } = await machine({ nodeIp: '198.51.100.9' })
  const { signal } = new AbortController()
  const settle = () => settleNodeAddress({ ...options, signal, look: () => Promise.resolve(there) })
  expect(await settle()).toMatchObject({ address: '198.51.100.9', isPresent: false })
  expect(() => readFileSync(paths.nodeRecord)).toThrow('ENOENT')
})

test('the API server has the address of the Node, unless it is told otherwise', async () => {
  const { config } = await machine()
  const advertised = { ...config, advertiseAddress: '203.0.113.5' }
  expect(addressesOf(config, '192.0.2.7')).toEqual({
    nodeIp: '192.0.2.7',
    advertiseAddress: '192.0.2.7',
  })
  expect(addressesOf(advertised, '192.0.2.7').advertiseAddress).toBe('203.0.113.5')
})

describe('what lo has', () => {
  const interfaces = {
    lo: ['127.0.0.1', '127.0.1.1', '::1', '192.0.2.7'].map((address) => ({ address, internal: true })),
    eth0: [{ address: '192.0.2.9', internal: false }],
  } as unknown as NodeJS.Dict<NetworkInterfaceInfo[]>

  test('beside its own is told', () => {
    expect(loopbackAddresses(interfaces)).toEqual(['192.0.2.7'])
  })
})

describe('the address of the Node is kept on lo', () => {
  /** A machine whose program `cni` notes what it is asked. */
  async function lo() {
    const { paths } = await machine()
    const calls = join(paths.dataDir, 'calls')
    mkdirSync(paths.runDir, { recursive: true })
    writeFileSync(calls, '')
    writeFileSync(join(paths.dataDir, 'cni'), `#!/bin/sh\necho "$@" >>${calls}\n`, { mode: 0o755 })
    const asked = () => readFileSync(calls, 'utf8').split('\n').filter(Boolean)
    const hold = (isPresent: boolean, onLoopback: string[], address = '192.0.2.7') =>
      holdWhileAway(
        { address, isPresent },
        {
          ...{ payload: { cniBinDir: paths.dataDir }, paths, log: silentLogger },
          ...{ former: '192.0.2.7', onLoopback },
        },
      )
    return { asked, hold }
  }

  test('while no interface has it, and once', async () => {
    const { asked, hold } = await lo()
    await hold(false, [])
    await hold(false, ['192.0.2.7'])
    expect(asked()).toEqual(['address-hold 192.0.2.7'])
    await hold(true, ['192.0.2.7'])
    await hold(true, [])
    expect(asked()).toEqual(['address-hold 192.0.2.7', 'address-release 192.0.2.7'])
  })

  test('and goes when the Node has another one', async () => {
    const { asked, hold } = await lo()
    await hold(false, [])
    await hold(true, ['192.0.2.7'], '192.0.2.8')
    expect(asked()).toEqual(['address-hold 192.0.2.7', 'address-release 192.0.2.7'])
  })

  test('but one that somebody has put there, and sends from, is his', async () => {
    const { asked, hold } = await lo()
    await hold(true, ['192.0.2.7'])
    await hold(false, ['192.0.2.7'])
    await hold(true, ['192.0.2.7'], '192.0.2.8')
    expect(asked()).toEqual([])
  })
})

test('an address has to be there in two looks before it is followed', () => {
  const change = new SettledChange()
  const looks = ['a', 'b', 'c', 'c', 'a', 'b', 'a']
  expect(looks.map((found) => change.isSettled('a', found))).toEqual([
    true,
    false,
    false,
    true,
    true,
    false,
    true,
  ])
})

test('a change that cannot be followed, as on a full disk, is found again by the next look', async () => {
  const { config, paths } = await machine()
  let nodeIp = '192.0.2.7'
  const restarted: string[] = []
  const addresses = () => addressesOf(config, nodeIp)
  const context = {
    log: silentLogger,
    addresses,
    issueCredentials: () => prepareCredentials({ config, addresses, paths, log: silentLogger }),
    moveNode: (address: string) => void (nodeIp = address),
    restart: (name: string) => Promise.resolve(void restarted.push(name)),
  }
  const { signal } = new AbortController()
  writeFileSync(paths.pkiDir, 'in the way')
  await expect(follow(context, { nodeIp: '192.0.2.8' }, signal)).rejects.toThrow(paths.pkiDir)
  expect([nodeIp, restarted]).toEqual(['192.0.2.7', []])
  rmSync(paths.pkiDir)
  await follow(context, { nodeIp: '192.0.2.8' }, signal)
  expect([nodeIp, restarted]).toEqual(['192.0.2.8', ['etcd', 'kube-apiserver', 'kubelet', 'kube-proxy']])
})

describe('the address of the second family', () => {
  const both: Network = {
    addresses: [...there.addresses, { interface: 'eth0', address: '2001:db8::7', kind: 'plain' }],
    routeSource: '192.0.2.7',
    last: undefined,
    other: { routeSource: '2001:db8::7', last: undefined },
  }

  test('is remembered, waited for by nobody, and not forgotten while it is away', async () => {
    const { config, paths, options } = await machine()
    const settings = {
      ...config,
      clusterCidr: '10.244.0.0/16,fd00:244::/56',
      serviceCidr: '10.96.0.0/12,fd00:96::/112',
    }
    const { signal } = new AbortController()
    const settle = (network: Network) =>
      settleNodeAddress({ ...options, config: settings, signal, look: () => Promise.resolve(network) })
    expect(await settle(both)).toMatchObject({ address: '192.0.2.7', other: '2001:db8::7' })
    expect(
      await settle({
        ...both,
        addresses: there.addresses,
        other: { routeSource: undefined, last: '2001:db8::7' },
      }),
    ).toMatchObject({ address: '192.0.2.7', other: undefined })
    expect(JSON.parse(readFileSync(paths.nodeRecord, 'utf8'))).toMatchObject({
      address: '192.0.2.7',
      otherAddress: '2001:db8::7',
    })
    expect(readLastOtherAddress(paths.nodeRecord)).toBe('2001:db8::7')
  })

  test('is followed by those who know it', async () => {
    const { config } = await machine()
    let own: readonly (string | undefined)[] = ['192.0.2.7']
    const restarted: string[] = []
    const context = {
      log: silentLogger,
      addresses: () => addressesOf(config, own[0] ?? '', own[1]),
      issueCredentials: () => Promise.resolve(),
      moveNode: (...moved: readonly (string | undefined)[]) => void (own = moved),
      restart: (name: string) => Promise.resolve(void restarted.push(name)),
    }
    await follow(context, { nodeIp: '192.0.2.7', otherNodeIp: '2001:db8::7' }, new AbortController().signal)
    expect(own).toEqual(['192.0.2.7', '2001:db8::7'])
    expect(restarted).toEqual(['kubelet', 'kube-proxy'])
  })
})
