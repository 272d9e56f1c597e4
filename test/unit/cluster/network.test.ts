import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type KeeperContext, NetworkKeeper } from '../../../src/cluster/tasks/network.ts'
import type { DesiredNetwork, NodeFacts } from '../../../src/network/desired.ts'
import { hostTree } from '../node/host-tree.ts'

/** What the cluster says is its backend; undefined: nothing. */
let published: string | undefined
let server: Server
let url: string
let told: string[]

beforeEach(async () => {
  published = undefined
  told = []
  server = createServer((request, response) => {
    const isThere = request.url === '/api/v1/namespaces/kube-system/configmaps/kubeadm-config'
    response.writeHead(isThere && published !== undefined ? 200 : 404)
    response.end(JSON.stringify({ data: { 'network-backend': published } }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterEach(() => {
  vi.restoreAllMocks()
  server.close()
})

/** A machine whose program keeps what it reads, and prints what a file says. */
function machine() {
  const root = hostTree({ '/proc/sys/net/ipv4/ip_forward': '0\n', '/run/k8s/.keep': '' })
  const files = {
    input: join(root, 'input'),
    output: join(root, 'output'),
    mark: join(root, 'run/k8s/network'),
  }
  mkdirSync(join(root, 'bin'))
  writeFileSync(
    join(root, 'bin/cni'),
    `#!/bin/sh\n[ "$1" = network-apply ] && cat >${files.input} && cat ${files.output}\n`,
    {
      mode: 0o755,
    },
  )
  const tell = (_: object, message: string) => void told.push(message)
  const context = {
    access: { server: url, identity: () => Promise.resolve({}) },
    addresses: () => ({ nodeIp: '192.0.2.1', advertiseAddress: '192.0.2.1' }),
    config: {
      nodeName: 'one',
      clusterCidr: '10.244.0.0/16',
      serviceCidr: '10.96.0.0/12',
      networkBackend: 'vxlan',
      vxlanChecksumOffload: true,
    },
    log: { info: tell, warn: tell, debug() {} },
    paths: { networkMark: files.mark },
    payload: { cniBinDir: join(root, 'bin') },
  } as unknown as KeeperContext
  const answer = (changed: string[], failed: object[] = []) =>
    writeFileSync(files.output, JSON.stringify({ changed, failed }))
  answer(['something'])
  return {
    ...{ root, files, answer },
    keeper: () => new NetworkKeeper(context, { root }),
    asked: () => JSON.parse(readFileSync(files.input, 'utf8')) as DesiredNetwork,
  }
}

function nodes(...names: string[]): Map<string, NodeFacts> {
  const all = ['one', 'two', 'three']
  return new Map(
    names.map((name) => {
      const index = all.indexOf(name)
      const facts = { podCidrs: [`10.244.${index}.0/24`], addresses: [`192.0.2.${index + 1}`] }
      return [name, { name, createdAt: '2026-01-01T00:00:00Z', ...facts }]
    }),
  )
}

const { signal } = new AbortController()

test('a Node alone starts no program, and is not in use', async () => {
  const { files, keeper } = machine()
  const one = keeper()
  await one.look(nodes('one'), signal)
  expect([one.isInUse, existsSync(files.input), existsSync(files.mark)]).toEqual([false, false, false])
})

test('a second Node is led to, with a mark for who removes it; when it has gone, so has all', async () => {
  const { root, files, asked, keeper } = machine()
  const one = keeper()
  await one.look(nodes('one', 'two'), signal)
  expect(asked().peers.map(({ name }) => name)).toEqual(['two'])
  expect([one.isInUse, existsSync(files.mark)]).toEqual([true, true])
  expect(readFileSync(join(root, 'proc/sys/net/ipv4/ip_forward'), 'utf8')).toBe('1')
  await one.look(nodes('one'), signal)
  expect(asked()).toEqual({ backend: 'none', deviceName: 'k8s-vxlan', peers: [] })
  expect([one.isInUse, existsSync(files.mark)]).toEqual([false, false])
})

test('a machine whose own Node gets no range says why, and is silent while there are some left', async () => {
  const { keeper } = machine()
  const others = Array.from({ length: 256 }, (_, index): NodeFacts => {
    const name = `n${index}`
    return { name, createdAt: '', podCidrs: [`10.244.${index}.0/24`], addresses: [`192.0.2.${index}`] }
  })
  const own: NodeFacts = { name: 'one', createdAt: '', podCidrs: [], addresses: ['198.51.100.1'] }
  const all = (nodes_: readonly NodeFacts[]) => new Map(nodes_.map((node) => [node.name, node]))
  await keeper().look(all([own, ...others.slice(1)]), signal)
  await expect(keeper().look(all([own, ...others]), signal)).rejects.toThrow(
    /^there is no range left for its pods: 256 Nodes have all of cluster-cidr 10\.244\.0\.0\/16/,
  )
})

test('what an earlier daemon has made is taken away, too', async () => {
  const { files, asked, keeper } = machine()
  writeFileSync(files.mark, '')
  const one = keeper()
  expect(one.isInUse).toBe(true)
  await one.look(nodes('one'), signal)
  expect(asked().backend).toBe('none')
})

test('a change is told, what was lost and is again is a warning, and nothing is said of nothing', async () => {
  const { answer, keeper } = machine()
  const one = keeper()
  await one.look(nodes('one', 'two'), signal)
  answer([])
  await one.look(nodes('one', 'two'), signal)
  expect(told).toEqual(['the network between nodes has changed'])
  answer(['device k8s-vxlan'])
  await one.look(nodes('one', 'two'), signal)
  expect(told[1]).toBe("what leads to other nodes' pods was not as it was made, and is again")
})

test('the backend is what the cluster says, asked again after a while', async () => {
  const { asked, keeper } = machine()
  published = 'host-gw'
  const one = keeper()
  await one.look(nodes('one', 'two'), signal)
  expect(asked().backend).toBe('host-gw')
  published = 'vxlan'
  await one.look(nodes('one', 'two'), signal)
  expect(asked().backend).toBe('host-gw')
  const nowMs = performance.now()
  vi.spyOn(performance, 'now').mockReturnValue(nowMs + 31_000)
  await one.look(nodes('one', 'two'), signal)
  expect(asked().backend).toBe('vxlan')
})

test('a backend that this version does not know is passed over', async () => {
  const { asked, keeper } = machine()
  published = 'carrier-pigeon'
  await keeper().look(nodes('one', 'two'), signal)
  expect(asked().backend).toBe('vxlan')
})

test('refused Nodes, and those that the kernel could not be told of, are named when the others are led to', async () => {
  const { answer, asked, keeper } = machine()
  const all = nodes('one', 'two', 'three')
  all.set('bad', { name: 'bad', createdAt: '', podCidrs: ['0.0.0.0/0'], addresses: ['192.0.2.9'] })
  answer([], [{ node: 'three', reason: 'nothing leads to 192.0.2.3' }])
  await expect(keeper().look(all, signal)).rejects.toThrow(
    'not all pods of other nodes are reached: bad: its range "0.0.0.0/0" does not lie in cluster-cidr 10.244.0.0/16; three: nothing leads to 192.0.2.3',
  )
  expect(asked().peers.map(({ name }) => name)).toEqual(['three', 'two'])
})

test('a range of another size is taken where this Node has such a one', async () => {
  const { asked, keeper } = machine()
  const wide = nodes('one', 'two')
  const resize = (name: string, podCidr: string) =>
    wide.set(name, { ...(wide.get(name) as NodeFacts), podCidrs: [podCidr] })
  resize('one', '10.244.0.0/20')
  resize('two', '10.244.16.0/20')
  await keeper().look(wide, signal)
  expect(asked().peers[0]?.routes).toEqual([{ range: '10.244.16.0/20', via: '10.244.16.0' }])
})

test('a program that fails leaves the mark: something may be there', async () => {
  const { files, root, keeper } = machine()
  writeFileSync(join(root, 'bin/cni'), '#!/bin/sh\necho this kernel has no vxlan >&2\nexit 1\n')
  await expect(keeper().look(nodes('one', 'two'), signal)).rejects.toThrow('this kernel has no vxlan')
  expect(existsSync(files.mark)).toBe(true)
})
