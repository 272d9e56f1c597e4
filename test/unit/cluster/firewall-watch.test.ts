import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'

const source = (path: string) => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).href)

interface Outcome {
  readonly restarts: number
  readonly told: readonly string[]
  readonly parts: readonly string[]
  /** What portmap was called with. */
  readonly calls: readonly string[]
  readonly masquerades: boolean
}

/**
 * Runs lines of a program with the rules of a network namespace of its own, in which `web` is a pod with a port of the
 * node, and portmap a script that writes its rule with the real nft, unless there is a file that says that it fails.
 */
function inOwnNetwork(lines: string): Outcome[] {
  const program = `
    import { execFileSync } from 'node:child_process'
    import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
    import { FirewallWatch } from ${source('cluster/tasks/firewall.ts')}
    import { firewall } from ${source('node/firewall/firewall.ts')}
    import { renderCniConfig } from ${source('node/render/cni-config.ts')}
    const nft = (text) => execFileSync('nft', ['-f', '-'], { input: text })
    const results = '/var/lib/cni/results'
    const config = renderCniConfig({ podCidr: '10.244.0.0/24', backend: 'nftables', ipamDir: '/x' })
    const cached = {
      containerId: 'abc',
      config: Buffer.from(config).toString('base64'),
      ifName: 'eth0',
      netns: '/var/lib/cni/namespace',
      cniArgs: [['K8S_POD_NAMESPACE', 'default'], ['K8S_POD_NAME', 'web']],
      capabilityArgs: { portMappings: [{ hostPort: 80, containerPort: 80, protocol: 'tcp' }] },
      result: { cniVersion: '1.0.0' },
    }
    mkdirSync(results, { recursive: true })
    writeFileSync('/var/lib/cni/namespace', '')
    writeFileSync(results + '/k8s-abc-eth0', JSON.stringify(cached))
    writeFileSync('/var/lib/cni/portmap', \`#!/bin/sh
      read -r request
      echo "$CNI_COMMAND $CNI_CONTAINERID" >>/var/lib/cni/calls
      [ ! -e /var/lib/cni/broken ] || { echo '{"msg":"no such backend"}'; exit 1; }
      [ "$CNI_COMMAND" = DEL ] || nft 'add table ip cni_hostport; add chain ip cni_hostport hostports; add rule ip cni_hostport hostports tcp dport 80 counter comment "abc"'
    \`)
    chmodSync('/var/lib/cni/portmap', 0o755)
    const writeServices = () =>
      nft('add table ip kube-proxy; add chain ip kube-proxy services; add chain ip kube-proxy nat-prerouting; add rule ip kube-proxy nat-prerouting jump services')

    let laterMs = 0
    const now = performance.now.bind(performance)
    performance.now = () => now() + laterMs
    const outcomes = []
    const state = { isReady: true, isHealed: true, restarts: 0, told: [], parts: new Map() }
    const tell = (fields, message) => state.told.push(message ?? fields)
    const context = {
      config: {},
      payload: { cniBinDir: '/var/lib/cni' },
      log: { warn: tell, error: tell, info: tell },
      board: { report: (part) => state.parts.set(part.name, part.message), forget: (name) => state.parts.delete(name) },
      isReady: () => state.isReady,
      restart: async () => {
        state.restarts += 1
        if (state.isHealed) writeServices()
      },
    }
    const watch = new FirewallWatch(firewall('nftables', '10.244.0.0/16'), context)
    const signal = new AbortController().signal
    const look = async (isFirst = false) => {
      await watch.look({ isFirst, thorough: true, signal })
      const rules = execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8' })
      const calls = existsSync('/var/lib/cni/calls') ? readFileSync('/var/lib/cni/calls', 'utf8').trim().split('\\n') : []
      outcomes.push({
        restarts: state.restarts,
        told: state.told.splice(0),
        parts: [...state.parts.values()],
        calls,
        masquerades: /ip saddr 10.244.0.0\\/16 .* masquerade/.test(rules),
      })
    }
    ${lines}
    process.stdout.write(JSON.stringify(outcomes))`
  const shell = 'mount -t tmpfs tmpfs /var/lib && exec "$@"'
  const output = execFileSync(
    'unshare',
    [
      ...['--net', '--mount', '--propagation', 'private', 'sh', '-c', shell, 'sh'],
      ...[process.execPath, '--input-type=module', '--eval', program],
    ],
    { encoding: 'utf8' },
  )
  return JSON.parse(output) as Outcome[]
}

const isRoot = process.getuid?.() === 0
const portsBack = 'the port mappings of the pod were gone, and are there again'
const masqueradeBack = 'the rules of masquerading were gone, and are there again'
const forwardsNothing =
  'the firewall drops what it has no rule for in its chain FORWARD: what comes from pods and goes to them is let through'
const servicesGone = 'the rules of Services are gone; kube-proxy is started anew to write them'

test.runIf(isRoot)('what a start finds missing is written, by whom it is, in the second look', () => {
  const [first, second, third] = inOwnNetwork('await look(true); await look(); await look()')
  expect(first).toEqual({ restarts: 0, told: [], parts: [], calls: [], masquerades: true })
  expect(second).toMatchObject({ restarts: 1, told: [servicesGone, portsBack], calls: ['ADD abc'] })
  expect(third).toMatchObject({ restarts: 1, told: [], calls: ['ADD abc'] })
})

test.runIf(isRoot)('all of it comes back after nft flush ruleset', () => {
  const outcomes = inOwnNetwork(`
    writeServices()
    await look(true); await look()
    nft('flush ruleset')
    await look(); await look(); await look()`)
  expect(outcomes.slice(2).map(({ told }) => told)).toEqual([[masqueradeBack], [servicesGone, portsBack], []])
  expect(outcomes.at(-1)).toMatchObject({ restarts: 1, masquerades: true, calls: ['ADD abc', 'ADD abc'] })
})

test.runIf(isRoot)(
  'a firewall that drops what no rule names lets the pods through, and keeps its own rules',
  () => {
    const outcomes = inOwnNetwork(`
    writeServices()
    await look(true); await look()
    nft('add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }')
    nft('add rule ip filter FORWARD ip saddr 192.0.2.1 drop')
    await look(); await look()
    const chain = execFileSync('nft', ['list', 'chain', 'ip', 'filter', 'FORWARD'], { encoding: 'utf8' })
    state.told.push(...chain.split('\\n').filter((line) => /drop$|jump/.test(line)).map((line) => line.trim().replace(/packets .* bytes \\d+ /, '')))
    await look()`)
    expect(outcomes.slice(2).map(({ told }) => told)).toEqual([
      [forwardsNothing],
      [],
      ['ip saddr 192.0.2.1 drop', 'counter jump CNI-K8S-FORWARD'],
    ])
  },
)

test.runIf(isRoot)('kube-proxy is left alone while it starts, and not started again and again', () => {
  const outcomes = inOwnNetwork(`
    state.isReady = false
    await look(true); await look(); await look()
    state.isReady = true
    state.isHealed = false
    await look(); await look(); await look(); await look()
    laterMs = 60_000
    state.isHealed = true
    await look(); await look()`)
  expect(outcomes.map(({ restarts }) => restarts)).toEqual([0, 0, 0, 0, 1, 1, 1, 2, 2])
  const isTold = ({ parts }: Outcome) => parts.some((part) => part.startsWith('their rules are gone'))
  expect(outcomes.map(isTold)).toEqual([false, false, false, false, true, true, true, true, false])
})

test.runIf(isRoot)('a pod whose ports cannot be mapped again is named until it is gone', () => {
  const outcomes = inOwnNetwork(`
    writeServices()
    writeFileSync('/var/lib/cni/broken', '')
    await look(true); await look(); await look()
    rmSync(results + '/k8s-abc-eth0')
    await look()`)
  const message = 'gone of default/web: delete these pods, new ones get them'
  expect(outcomes.map(({ parts }) => parts)).toEqual([[], [message], [message], []])
  expect(outcomes.at(-1)?.calls).toEqual(['ADD abc'])
})

test.runIf(isRoot)(
  'what could not be mapped is tried again, as rules may be removed while they are written',
  () => {
    const outcomes = inOwnNetwork(`
    writeServices()
    writeFileSync('/var/lib/cni/broken', '')
    await look(true); await look(); await look()
    rmSync('/var/lib/cni/broken')
    laterMs = 60_000
    await look(); await look(); await look()`)
    expect(outcomes.map(({ parts }) => parts.length)).toEqual([0, 1, 1, 1, 0, 0])
    expect(outcomes.at(-1)?.calls).toEqual(['ADD abc', 'ADD abc'])
  },
)

test.runIf(isRoot)('of a pod that ends meanwhile nothing is left', () => {
  const outcomes = inOwnNetwork(`
    writeServices()
    await look(true)
    const script = readFileSync('/var/lib/cni/portmap', 'utf8')
    writeFileSync('/var/lib/cni/portmap', script + '\\nrm -f /var/lib/cni/results/*\\n')
    await look()`)
  expect(outcomes.at(-1)?.calls).toEqual(['ADD abc', 'DEL abc'])
})

test.runIf(isRoot)('of the pods of another network only Services are looked after', () => {
  const outcomes = inOwnNetwork(`
    context.config.cniConfDir = '/etc/cni/net.d'
    await look(true); await look(); await look()`)
  expect(outcomes.at(-1)).toEqual({
    ...{ restarts: 1, told: [], parts: [], calls: [], masquerades: false },
  })
})
