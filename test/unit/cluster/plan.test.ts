import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { ApiBalancer, balancerUrl } from '../../../src/balancer/api-balancer.ts'
import { Servers } from '../../../src/balancer/servers.ts'
import { planKubelet } from '../../../src/cluster/kubelet/plan.ts'
import { Rejections } from '../../../src/cluster/kubelet/static-pods.ts'
import { planAgent, planRole, roleRow } from '../../../src/cluster/plan.ts'
import type { ComponentContext, NodeContext } from '../../../src/components/component.ts'
import type { KubeletContext } from '../../../src/components/component.ts'
import { joinedAccess, serverAccess } from '../../../src/components/node-access.ts'
import { loadAnyConfig } from '../../../src/config/load.ts'
import { paths } from '../../../src/config/paths.ts'
import { pkiFiles } from '../../../src/pki/pki.ts'
import { flagsOf, load } from '../config/given.ts'

const page = readFileSync(join(import.meta.dirname, '../../../docs/architecture.md'), 'utf8')

async function plan(mode: 'single' | 'ha' | 'agent', ...flags: string[]) {
  if (mode === 'agent') return planOfAgent()
  const config = await load({ flags: [`--server-mode=${mode}`, ...flags] })
  const places = paths(config)
  return planRole(roleRow(mode), {
    config,
    paths: places,
    pki: pkiFiles(places.pkiDir),
    access: serverAccess(config, places),
    payload: { bin: (name: string) => name, dir: '' },
    environment: {},
    log: silentLogger,
  } as unknown as ComponentContext)
}

async function planOfAgent() {
  const config = await loadAnyConfig({ flags: [], environment: {}, role: 'agent' })
  const places = paths(config)
  const payload = { bin: (name: string) => name, dir: '' }
  const context = {
    config,
    paths: places,
    payload,
    access: joinedAccess(places, balancerUrl),
    environment: {},
    log: silentLogger,
  }
  const servers = new Servers({ listed: [], fallback: [], tls: {}, log: silentLogger })
  const balancer = new ApiBalancer({
    ...{ servers, identity: context.access.identity, remember: () => {}, log: silentLogger },
  })
  return planAgent(context as unknown as NodeContext, {
    ...{ balancer, issueCredentials: async () => {}, whenAway: async () => {} },
  })
}

async function planAlone(...flags: string[]) {
  const config = await loadAnyConfig({ flags: flagsOf(flags), environment: {}, role: 'kubelet' })
  const places = paths(config)
  const context = {
    config,
    paths: places,
    payload: { bin: (name: string) => name, dir: '' },
    environment: {},
    log: silentLogger,
  } as unknown as KubeletContext
  return planKubelet(context, {
    issueCredentials: async () => {},
    rejections: new Rejections('/manifests', silentLogger),
  })
}

const ofServers = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler']

test.each<[mode: 'single' | 'ha' | 'agent', others: readonly string[], flags: string[]]>([
  ['single', ['etcd', 'etcd-proxy', 'api-balancer', 'cri-dockerd'], []],
  ['ha', ['datastore', 'etcd', 'api-balancer', 'cri-dockerd'], []],
  ['ha', ['datastore', 'api-balancer', 'cri-dockerd'], ['--cluster-init=true']],
  ['agent', ['datastore', 'etcd', 'etcd-proxy', 'cri-dockerd', ...ofServers], []],
])(
  'docs/architecture.md has the components of the role %s, without %s, in the order of their start',
  async (mode, others, flags) => {
    const { components } = await plan(mode, ...flags)
    const all = page.matchAll(
      /^\| ([a-z-]+) \| (.+) \| (.+) \| .+ \| (degraded|the \S+ ends|it is waited for) \|$/gm,
    )
    const rows = [...all].filter(([, name = '']) => !others.includes(name))
    // An etcd that others run is there by itself.
    const listed = (text = '') =>
      text === '-' ? [] : text.split(', ').filter((name) => name !== 'member' || flags.length > 0)
    expect(
      components.map(({ name, needs, provides, policy }) => ({ name, needs, provides, policy })),
    ).toEqual(
      rows.map(([, name, needs, provides, without]) => ({
        name,
        needs: listed(needs),
        provides: listed(provides),
        policy: without === 'degraded' ? 'degraded' : 'fatal',
      })),
    )
  },
)

test('docs/architecture.md has its tasks', async () => {
  const tasks = [
    ...(await plan('single')).tasks,
    ...(await plan('agent')).tasks,
    ...(await planAlone()).tasks,
  ]
  const section = page.slice(page.indexOf('## The tasks'), page.indexOf('## The stop'))
  const named = [...section.matchAll(/(?:^- |[.,] )((?:`[a-z-]+`(?:, )?)+):/gm)].flatMap(([, names = '']) =>
    names.replaceAll('`', '').split(', '),
  )
  expect(named.toSorted()).toEqual([...new Set(tasks.map(({ name }) => name))].toSorted())
})

test('every kind of server has the same tasks', async () => {
  const names = async (mode: 'single' | 'ha') => (await plan(mode)).tasks.map(({ name }) => name)
  expect(await names('single')).toEqual(await names('ha'))
})

test('no task of an agent is for a leader alone, as each agent leads', async () => {
  const { tasks } = await plan('agent')
  expect(tasks.filter(({ leaderOnly }) => leaderOnly)).toEqual([])
})

test('a kubelet alone needs a container runtime and no API, and brings its own runtime unless one is named', async () => {
  const named = ({ name, needs }: { name: string; needs: readonly string[] }) => ({ name, needs })
  expect((await planAlone()).components.map(named)).toEqual([
    { name: 'containerd', needs: [] },
    { name: 'kubelet', needs: ['cri', 'archives'] },
  ])
  const elsewhere = await planAlone('--container-runtime-endpoint=unix:///run/cri.sock')
  expect(elsewhere.components.map(named)).toEqual([{ name: 'kubelet', needs: [] }])
  expect(elsewhere.tasks.map(({ name }) => name)).not.toContain('firewall')
})
