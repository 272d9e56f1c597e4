import { existsSync, mkdirSync, mkdtempDisposableSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  forgetNode,
  keepFacts,
  nodeId,
  readFacts,
  readNodeRecord,
  updateNodeRecord,
} from '../../../src/config/facts.ts'
import { loadAnyConfig } from '../../../src/config/load.ts'
import { type Paths, paths as pathsOf } from '../../../src/config/paths.ts'
import { schema } from '../../../src/config/schema.ts'
import type { Row } from '../../../src/config/settings/rows.ts'
import { flagsOf } from './given.ts'

let directory: ReturnType<typeof mkdtempDisposableSync>
let paths: Paths

beforeEach(() => {
  directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-facts-'))
  paths = pathsOf({ dataDir: directory.path })
})
afterEach(() => directory.remove())

/** A start with these flags, on a machine of that name: the configuration, and what it warned of. */
async function start(flags: readonly string[], { hostName = 'one', environment = {} } = {}) {
  const warnings: string[] = []
  const config = await loadAnyConfig({
    flags: flagsOf([`--data-dir=${paths.dataDir}`, ...flags]),
    environment: { K8S_CONFIG: '', ...environment },
    host: { nodeName: () => hostName, facts: readFacts },
    warn: (line) => warnings.push(line.replaceAll(paths.dataDir, 'DIR')),
  })
  return { config, warnings }
}

/** The same, which goes so far that the cluster is there. */
async function create(flags: readonly string[], { hostName = 'one' } = {}): Promise<void> {
  const { config } = await start(flags, { hostName })
  keepFacts(config, hostName)
}

async function refusal(flags: readonly string[], given = {}): Promise<string> {
  const error: unknown = await start(flags, given).catch((thrown: unknown) => thrown)
  const { code, message } = error as { code?: string; message: string }
  return code === 'USAGE' ? message.replaceAll(paths.dataDir, 'DIR') : `not a usage error: ${message}`
}

describe('what was fixed when the cluster was created', () => {
  const created = ['--service-cidr=10.97.0.0/16', '--cluster-cidr=10.240.0.0/16', '--cluster-domain=c.test']

  test('has both families as one text, and none is added or taken away later', async () => {
    const both = ['--service-cidr=10.97.0.0/16,fd01::/112', '--cluster-cidr=10.240.0.0/16,fd02::/56']
    await create(both)
    expect(readFacts(paths.dataDir).cluster).toMatchObject({
      'service-cidr': '10.97.0.0/16,fd01::/112',
      'cluster-cidr': '10.240.0.0/16,fd02::/56',
    })
    expect((await start([])).config).toMatchObject({ clusterCidr: '10.240.0.0/16,fd02::/56' })
    expect((await start(both)).config).toMatchObject({ serviceCidr: '10.97.0.0/16,fd01::/112' })
    expect(await refusal(['--service-cidr=10.97.0.0/16', '--cluster-cidr=10.240.0.0/16'])).toContain(
      'the cluster was created with cluster-cidr 10.240.0.0/16,fd02::/56 (DIR/cluster.json), which cannot change',
    )
  })

  test('of one family does not become one of both', async () => {
    await create(created)
    const both = ['--service-cidr=10.97.0.0/16,fd01::/112', '--cluster-cidr=10.240.0.0/16,fd02::/56']
    expect(await refusal(both)).toBe(
      'cannot use --cluster-cidr=10.240.0.0/16,fd02::/56: the cluster was created with cluster-cidr 10.240.0.0/16 (DIR/cluster.json), which cannot change; leave the setting away, or create another cluster with another --data-dir, or after k8s reset',
    )
  })

  test('is kept for its owner alone, whole', async () => {
    await create(created)
    expect(JSON.parse(readFileSync(paths.clusterFacts, 'utf8'))).toEqual({
      formatVersion: 1,
      settings: {
        'server-mode': 'single',
        'service-cidr': '10.97.0.0/16',
        'cluster-cidr': '10.240.0.0/16',
        'cluster-domain': 'c.test',
        'cluster-dns': '10.97.0.10',
      },
    })
    for (const path of [paths.clusterFacts, paths.nodeRecord]) expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  test('is every setting whose row says so', async () => {
    await create([])
    const named = Object.entries(schema).flatMap(([name, row]: [string, Row]) =>
      row.factOf !== undefined && row.roles.includes('single') ? [[row.factOf, name] as const] : [],
    )
    const { cluster, node } = readFacts(paths.dataDir)
    expect(
      named
        .filter(([of]) => of === 'cluster')
        .map(([, name]) => name)
        .sort(),
    ).toEqual(Object.keys(cluster).sort())
    expect(
      named
        .filter(([of]) => of === 'node')
        .map(([, name]) => name)
        .sort(),
    ).toEqual(Object.keys(node).sort())
  })

  test('wins over the defaults of a later start that says nothing', async () => {
    await create(created)
    expect((await start([])).config).toMatchObject({
      serviceCidr: '10.97.0.0/16',
      clusterCidr: '10.240.0.0/16',
      clusterDomain: 'c.test',
      clusterDns: '10.97.0.10',
    })
  })

  test('may be said again, in another form, too', async () => {
    await create(['--service-cidr=fd01::/112', '--cluster-cidr=fd02::/56'])
    const again = ['--service-cidr=fd01:0::/112', '--cluster-dns=fd01:0::a']
    expect((await start(again)).config).toMatchObject({ clusterDns: 'fd01::a' })
  })

  test('has to go with the settings of a later start', async () => {
    await create(created)
    expect(await refusal(['--node-ip=10.240.0.9'])).toBe(
      'cannot use cluster-cidr 10.240.0.0/16, fixed in DIR/cluster.json: --node-ip=10.240.0.9 lies in it; the node needs an address outside',
    )
  })

  const wayOut =
    'which cannot change; leave the setting away, or create another cluster with another --data-dir, or after k8s reset'

  test.each([
    ['--service-cidr=10.96.0.0/12', 'service-cidr 10.97.0.0/16'],
    ['--cluster-cidr=10.244.0.0/16', 'cluster-cidr 10.240.0.0/16'],
    ['--cluster-domain=cluster.local', 'cluster-domain c.test'],
    ['--cluster-dns=10.97.0.53', 'cluster-dns 10.97.0.10'],
  ])('%s contradicts it', async (flag, fixed) => {
    await create(created)
    expect(await refusal([flag])).toBe(
      `cannot use ${flag}: the cluster was created with ${fixed} (DIR/cluster.json), ${wayOut}`,
    )
  })

  test('is contradicted by the environment and the file in their own words', async () => {
    await create([])
    expect(await refusal([], { environment: { K8S_CLUSTER_DOMAIN: 'x.test' } })).toBe(
      `cannot use K8S_CLUSTER_DOMAIN=x.test in the environment: the cluster was created with cluster-domain cluster.local (DIR/cluster.json), ${wayOut}`,
    )
    const file = join(paths.dataDir, 'config.yaml')
    writeFileSync(file, 'v: 1\ncluster-domain: x.test\n')
    expect(await refusal([], { environment: { K8S_CONFIG: file } })).toBe(
      `cannot use cluster-domain: x.test in DIR/config.yaml:2: the cluster was created with cluster-domain cluster.local (DIR/cluster.json), ${wayOut}`,
    )
  })

  test('is not what a start said that never came so far', async () => {
    await start(created)
    expect(existsSync(paths.clusterFacts)).toBe(false)
    expect((await start([])).config).toMatchObject({ clusterDomain: 'cluster.local' })
  })

  test('is completed where a version before knew less', async () => {
    writeFileSync(paths.clusterFacts, '{"formatVersion":1,"settings":{"cluster-domain":"old.test"}}')
    await create(['--service-cidr=10.97.0.0/16'])
    expect(readFacts(paths.dataDir).cluster).toMatchObject({
      'cluster-domain': 'old.test',
      'service-cidr': '10.97.0.0/16',
    })
  })

  test('of a later version that this one has no setting for is kept', async () => {
    writeFileSync(paths.clusterFacts, '{"formatVersion":1,"settings":{"overlay":"vxlan"}}')
    await create([])
    expect(readFacts(paths.dataDir).cluster).toMatchObject({ overlay: 'vxlan' })
  })

  test('is no other setting than those, whoever has made the record', async () => {
    const settings = { 'kube-apiserver-arg': 'authorization-mode=AlwaysAllow', 'node-name': 'evil', v: '9' }
    writeFileSync(paths.clusterFacts, JSON.stringify({ formatVersion: 1, settings }))
    writeFileSync(
      paths.nodeRecord,
      JSON.stringify({ formatVersion: 1, settings: { 'cluster-domain': 'x.y' } }),
    )
    expect((await start([])).config).toMatchObject({
      ...{ kubeApiserverArg: [], nodeName: 'one', v: 0, clusterDomain: 'cluster.local' },
    })
  })

  test('comes from a restore that is decided, and not carried out yet', async () => {
    await create([])
    mkdirSync(join(paths.restoreDir, 'new'), { recursive: true })
    writeFileSync(
      join(paths.restoreDir, 'new', 'cluster.json'),
      '{"formatVersion":1,"settings":{"cluster-domain":"restored.test"}}',
    )
    expect((await start([])).config).toMatchObject({ clusterDomain: 'restored.test' })
  })

  test.each([' '.repeat(70_000), '', 'null', '[]x', '{"settings":{"v":1}}', '{"formatVersion":2}'])(
    'that is damaged (%.20j) ends a start with what to do, and not as bad input',
    async (text) => {
      writeFileSync(paths.clusterFacts, text)
      await expect(start([])).rejects.toMatchObject({
        code: 'FACTS',
        remedy: 'mend it, or remove it: the next start writes what the settings say then',
      })
    },
  )
})

describe('a list that was fixed', () => {
  const lists: readonly { factOf?: string }[] = [schema['tls-san'], schema['kube-apiserver-arg']]
  // No setting of today is one.
  beforeAll(() => lists.forEach((row) => Object.assign(row, { factOf: 'cluster' })))
  afterAll(() => lists.forEach((row) => delete row.factOf))

  const created = [
    '--tls-san=a.test',
    '--tls-san=b.test',
    '--kube-apiserver-arg=a=1,2',
    '--kube-apiserver-arg=b=3',
  ]

  test('wins over the default, and may be said again in another form', async () => {
    await create(created)
    const fixed = { tlsSan: ['a.test', 'b.test'], kubeApiserverArg: ['a=1,2', 'b=3'] }
    expect((await start([])).config).toMatchObject(fixed)
    expect((await start(created)).config).toMatchObject(fixed)
    expect((await start(['--tls-san=a.test,b.test'])).config).toMatchObject(fixed)
  })

  test('is contradicted by another one, which is shown whole', async () => {
    await create(created)
    expect(await refusal(['--tls-san=a.test', '--tls-san=c.test'])).toContain(
      'cannot use --tls-san=a.test,c.test: the cluster was created with tls-san a.test,b.test (DIR/cluster.json)',
    )
    expect(await refusal(['--tls-san='])).toContain('was created with tls-san a.test,b.test')
  })

  test('may be an empty one', async () => {
    await create([])
    expect((await start(['--tls-san='])).config).toMatchObject({ tlsSan: [], kubeApiserverArg: [] })
    expect(await refusal(['--tls-san=a.test'])).toContain('was created with tls-san ""')
  })
})

describe('the name of the node', () => {
  const anotherNode =
    'make another Node of it: k8s stop --pods, remove DIR/node.json, start again, then k8s kubectl delete node one'

  test('stays when the machine is renamed, which is told', async () => {
    await create([])
    const { config, warnings } = await start([], { hostName: 'two' })
    expect(config).toMatchObject({ nodeName: 'one' })
    expect(warnings).toEqual([
      `the host name is two now, and the Node keeps its name one (DIR/node.json); let it, or ${anotherNode}`,
    ])
    // A start in between does not make the new name the one that it had.
    keepFacts(config, 'two')
    expect((await start([], { hostName: 'two' })).warnings).toHaveLength(1)
    expect((await start([])).warnings).toEqual([])
  })

  test('stays when the machine gets a name that no Node can have', async () => {
    await create([])
    const { config } = await start([], { hostName: 'my_host' })
    expect(config).toMatchObject({ nodeName: 'one' })
  })

  test('that a user gave has nothing to do with the name of the machine', async () => {
    await create(['--node-name=mine'])
    const { config, warnings } = await start([], { hostName: 'two' })
    expect(config).toMatchObject({ nodeName: 'mine' })
    expect(warnings).toEqual([])
  })

  test('is not changed by a setting, nor back', async () => {
    await create([])
    expect(await refusal(['--node-name=two'])).toBe(
      `cannot use --node-name=two: this machine is the Node one (DIR/node.json), and a Node keeps its name; leave the setting away, or ${anotherNode}`,
    )
    expect((await start(['--node-name=one'], { hostName: 'two' })).warnings).toEqual([])
  })

  test('is kept beside the address, whoever writes first', async () => {
    updateNodeRecord(paths, { address: '192.0.2.7' })
    await create([])
    updateNodeRecord(paths, { address: '192.0.2.8' })
    expect(JSON.parse(readFileSync(paths.nodeRecord, 'utf8'))).toEqual({
      formatVersion: 1,
      settings: { role: 'server', 'node-name': 'one' },
      hostName: 'one',
      address: '192.0.2.8',
    })
  })
})

describe('for who removes what is there', () => {
  const remove = async (flags: readonly string[], warn: (line: string) => void = () => {}) =>
    loadAnyConfig({
      flags: flagsOf([`--data-dir=${paths.dataDir}`, ...flags]),
      environment: { K8S_CONFIG: '' },
      host: { nodeName: () => 'two', facts: readFacts },
      factsWin: true,
      warn,
    })

  test('what is fixed wins over settings that contradict it', async () => {
    await create(['--cluster-domain=c.test', '--service-cidr=10.97.0.0/16'])
    const ofOtherRole = ['--role=datastore', '--listen-address=127.0.0.1:1']
    const flags = [
      '--cluster-domain=x.test',
      '--node-name=two',
      '--node-ip=10.97.0.9',
      ...ofOtherRole,
      '--v=2',
    ]
    expect(await remove(flags)).toMatchObject({
      ...{ role: 'server', nodeName: 'one', clusterDomain: 'c.test', serviceCidr: '10.97.0.0/16', v: 2 },
    })
  })

  test('a record says nothing of where that is', async () => {
    writeFileSync(paths.clusterFacts, JSON.stringify({ formatVersion: 1, settings: { 'data-dir': '/etc' } }))
    expect(await remove([])).toMatchObject({ dataDir: paths.dataDir })
  })

  test('a damaged record is told, and no hindrance', async () => {
    writeFileSync(paths.clusterFacts, '{')
    const warnings: string[] = []
    expect(await remove([], (line) => warnings.push(line))).toMatchObject({ role: 'server' })
    expect(warnings).toEqual([expect.stringContaining(`cannot use ${paths.clusterFacts}`)])
  })
})

describe('the role', () => {
  test('of a data directory is that of the next start', async () => {
    await create(['--role=datastore'])
    expect(JSON.parse(readFileSync(paths.nodeRecord, 'utf8'))).toMatchObject({
      settings: { role: 'datastore' },
    })
    expect(existsSync(paths.clusterFacts)).toBe(false)
    expect((await start([])).config.role).toBe('datastore')
  })

  test('cannot change', async () => {
    await create([])
    expect(await refusal(['--role=datastore'])).toBe(
      'cannot use --role=datastore: DIR is the data directory of a server; choose another one with --data-dir, or remove what is in it with k8s reset',
    )
    const asCommand = loadAnyConfig({
      flags: flagsOf([`--data-dir=${paths.dataDir}`]),
      environment: {},
      role: 'datastore',
    })
    await expect(asCommand).rejects.toMatchObject({
      code: 'USAGE',
      message: `cannot run a datastore in ${paths.dataDir}: it is the data directory of a server; choose another one with --data-dir, or remove what is in it with k8s reset`,
    })
  })

  test('of a directory with keys from before there were facts is a server', async () => {
    mkdirSync(paths.pkiDir)
    expect(await refusal(['--role=datastore'])).toContain('DIR is the data directory of a server')
    expect((await start([])).config.role).toBe('server')
  })
})

test('a restore keeps of a node its role and its id, by which its kubeconfigs know it', async () => {
  await create(['--node-name=one'])
  const id = nodeId(paths)
  expect(nodeId(paths)).toBe(id)
  updateNodeRecord(paths, { address: '192.0.2.7', podCidr: '10.244.0.0/24' })
  forgetNode(paths)
  const { formatVersion: _, ...record } = readNodeRecord(paths) as Record<string, unknown>
  expect(record).toEqual({ settings: { role: 'server' }, id })
})
