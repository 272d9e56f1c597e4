import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { preparePki } from '../../src/pki/pki.ts'
import { datastorePayload } from '../unit/cli/payload.ts'
import { runCli, runProcess } from '../unit/cli/run-cli.ts'
import { runDatastore } from '../unit/datastore/support.ts'
import {
  clientFlags,
  etcdFileProgram,
  type EtcdTls,
  etcdctl,
  etcdutl,
  runEtcd,
  temporaryDirectory,
  transact,
} from './etcd-peer.ts'
import { states, writeHistory } from './history.ts'

function commandLine(dataDir: string, args: string[]) {
  const payload = datastorePayload()
  mkdirSync(join(payload, 'bin'))
  symlinkSync(etcdFileProgram, join(payload, 'bin', 'etcd-file'))
  return { args: ['db', ...args, `--data-dir=${dataDir}`], environment: { K8S_PAYLOAD_DIR: payload } }
}

/** `k8s db ...` in a process of its own, as this one may serve the database. */
async function db(dataDir: string, ...args: string[]) {
  const { code, stdout, stderr } = await runProcess(commandLine(dataDir, args))
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return stdout
}

async function serve(dataDir: string) {
  const datastore = await runDatastore({ path: join(dataDir, 'db/state.db') })
  return { datastore, listening: datastore.listening, ctl: etcdctl(datastore.listening) }
}

describe('k8s db import-etcd', () => {
  test('takes a snapshot file of etcd, and export-etcd gives the same back', async () => {
    const directory = temporaryDirectory()
    const etcd = await runEtcd(join(directory, 'first'))
    await writeHistory(etcd.endpoint)
    const expected = await states(etcdctl(etcd.endpoint))
    const file = join(directory, 'snapshot.db')
    await etcdctl(etcd.endpoint)('snapshot', 'save', file)
    await etcd.stop()

    const dataDir = join(directory, 'data')
    expect(await db(dataDir, 'import-etcd', file)).toMatch(
      new RegExp(
        `has ${(expected.kvs.at(-1) as object[]).length} keys and 2 leases at revision ${expected.revision}\\.`,
      ),
    )
    const { ctl } = await serve(dataDir)
    expect(await states(ctl)).toEqual(expected)

    const exported = join(directory, 'exported.db')
    await db(dataDir, 'export-etcd', exported)
    await etcdutl('snapshot', 'restore', exported, `--data-dir=${join(directory, 'second')}`)
    const second = await runEtcd(join(directory, 'second'))
    expect(await states(etcdctl(second.endpoint))).toEqual(expected)
  })

  test('takes the file of an etcd that has stopped, when its digest is not asked for', async () => {
    const directory = temporaryDirectory()
    const etcd = await runEtcd(join(directory, 'etcd'))
    await writeHistory(etcd.endpoint)
    const expected = await states(etcdctl(etcd.endpoint))
    // A snapshot file whose digest is gone; etcd's own file lacks what is in its WAL alone.
    const file = join(directory, 'snapshot.db')
    await etcdctl(etcd.endpoint)('snapshot', 'save', file)
    await etcd.stop()
    const bytes = readFileSync(file)
    writeFileSync(file, bytes.subarray(0, -32))
    const dataDir = join(directory, 'data')
    const { stderr } = await runCli(commandLine(dataDir, ['import-etcd', file]))
    expect(stderr).toMatch(/has no digest at its end/)
    await db(dataDir, 'import-etcd', file, '--skip-hash-check')
    expect(await states((await serve(dataDir)).ctl)).toEqual(expected)
  })

  test('takes what an etcd holds that was restored with a bumped revision', async () => {
    const directory = temporaryDirectory()
    const etcd = await runEtcd(join(directory, 'etcd'))
    await etcdctl(etcd.endpoint)('put', 'a', '1')
    const file = join(directory, 'snapshot.db')
    await etcdctl(etcd.endpoint)('snapshot', 'save', file)
    const restore = ['--bump-revision=1000', '--mark-compacted', `--data-dir=${join(directory, 'bumped')}`]
    await etcdutl('snapshot', 'restore', file, ...restore)
    const bumped = await runEtcd(join(directory, 'bumped'))
    const again = join(directory, 'again.db')
    await etcdctl(bumped.endpoint)('snapshot', 'save', again)
    const dataDir = join(directory, 'data')
    expect(await db(dataDir, 'import-etcd', again)).toMatch(/has 1 keys and 0 leases at revision 1002\./)
  })

  test('asks an etcd that runs for its snapshot', async () => {
    const directory = temporaryDirectory()
    const etcd = await runEtcd(join(directory, 'etcd'))
    await writeHistory(etcd.endpoint)
    const dataDir = join(directory, 'data')
    await db(dataDir, 'import-etcd', etcd.endpoint)
    expect(await states((await serve(dataDir)).ctl)).toEqual(await states(etcdctl(etcd.endpoint)))
  })

  test('refuses what is damaged, and what there is none of', async () => {
    const directory = temporaryDirectory()
    const etcd = await runEtcd(join(directory, 'etcd'))
    await writeHistory(etcd.endpoint)
    const file = join(directory, 'snapshot.db')
    await etcdctl(etcd.endpoint)('snapshot', 'save', file)
    const whole = readFileSync(file)
    const spoilt = (name: string, bytes: Buffer) => {
      writeFileSync(join(directory, name), bytes)
      return join(directory, name)
    }
    const changed = Buffer.from(whole)
    changed.fill(0xff, 4096 * 2, changed.length - 32)
    const cases: [args: string[], reason: RegExp][] = [
      [[spoilt('changed', changed)], /its digest is not that of its content/],
      [
        [spoilt('unchecked', changed.subarray(0, -32)), '--skip-hash-check'],
        /is damaged|is no database of etcd/,
      ],
      [
        [spoilt('cut', whole.subarray(0, 4096 * 5)), '--skip-hash-check'],
        /is damaged: it has 20480 bytes of \d+/,
      ],
      [
        [spoilt('wild', withWildBuckets(whole).subarray(0, -32)), '--skip-hash-check'],
        /is damaged: its pages refer to what is not there/,
      ],
      [[spoilt('text', Buffer.alloc(100_000, 'x')), '--skip-hash-check'], /is no database of etcd/],
      [[join(directory, 'none')], /no such file/],
      [['http://127.0.0.1:1'], /cannot speak with the etcd at http:\/\/127\.0\.0\.1:1: .*ECONNREFUSED/],
    ]
    for (const [args, reason] of cases) {
      const { code, stderr } = await runCli(commandLine(join(directory, 'data'), ['import-etcd', ...args]))
      expect({ args, code, stderr }).toMatchObject({ code: 1, stderr: expect.stringMatching(reason) })
    }
  })
})

/** With buckets that refer to a page far beyond the file (bbolt: internal/common/{meta,page,bucket}.go). */
function withWildBuckets(bytes: Buffer): Buffer {
  const pageBytes = 4096
  const headBytes = 16
  const metas = [0, 1].map((page) => bytes.subarray(page * pageBytes + headBytes))
  const [newest = bytes] = metas.toSorted((a, b) => Number(b.readBigUInt64LE(48) - a.readBigUInt64LE(48)))
  const root = Number(newest.readBigUInt64LE(16)) * pageBytes
  const changed = Buffer.from(bytes)
  for (let index = 0; index < bytes.readUInt16LE(root + 10); index++) {
    const element = root + headBytes * (1 + index)
    const value = element + bytes.readUInt32LE(element + 4) + bytes.readUInt32LE(element + 8)
    changed.writeBigUInt64LE(2n ** 30n, value)
  }
  return changed
}

describe('k8s db export-etcd', () => {
  test('puts all keys into an etcd that runs, with their leases', async () => {
    const directory = temporaryDirectory()
    const dataDir = join(directory, 'data')
    const { ctl, listening } = await serve(dataDir)
    await writeHistory(listening)
    for (let hundred = 0; hundred < 3; hundred++) {
      const numbers = Array.from({ length: 100 }, (_, at) => hundred * 100 + at)
      await transact(listening, ...numbers.map((at) => `put many/${at} ${'x'.repeat(10_000)}`))
    }
    const etcd = await runEtcd(join(directory, 'etcd'))
    const theirs = etcdctl(etcd.endpoint)
    expect(await db(dataDir, 'export-etcd', etcd.endpoint)).toMatch(
      /keys and 2 leases now, with revisions of its own/,
    )
    expect(await theirs('get', '', '--from-key')).toBe(await ctl('get', '', '--from-key'))
    const leases = async (each: typeof ctl) => (await each('lease', 'list')).split('\n').toSorted()
    expect(await leases(theirs)).toEqual(await leases(ctl))
    const [, lease = ''] = (await ctl('lease', 'list')).split('\n')
    const keysOf = async (each: typeof ctl) =>
      (await each('lease', 'timetolive', lease, '--keys')).replace(/^.*, attached/, '')
    expect(await keysOf(theirs)).toBe(await keysOf(ctl))

    const again = await runCli(commandLine(dataDir, ['export-etcd', etcd.endpoint]))
    expect(again.stderr).toMatch(/cannot export: the etcd at .* has \d+ keys\. Name one that is empty/)
  })

  test('replaces no file', async () => {
    const dataDir = temporaryDirectory()
    const { datastore, ctl } = await serve(dataDir)
    await ctl('put', 'a', '1')
    await datastore.stop()
    const file = join(dataDir, 'exported.db')
    writeFileSync(file, 'mine')
    const { code, stderr } = await runCli(commandLine(dataDir, ['export-etcd', file]))
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/exists\. Name another file/),
    })
    expect(readFileSync(file, 'utf8')).toBe('mine')
  })
})

test('an etcd that wants certificates is imported from and exported to, and refuses who has none', async () => {
  const directory = temporaryDirectory()
  const tls = await certificates(join(directory, 'pki'))
  const first = await runEtcd(join(directory, 'first'), tls)
  await etcdctl(first.endpoint, tls)('put', 'a', '1')
  const dataDir = join(directory, 'data')
  for (const [flags, reason] of [
    [[], /self-signed certificate in certificate chain|unable to verify/],
    [[`--cacert=${tls.caFile}`], /certificate required|socket hang up|ECONNRESET|alert/i],
    [[`--cacert=${join(directory, 'none')}`], /cannot read .*none/],
  ] as const) {
    const { code, stderr } = await runCli(commandLine(dataDir, ['import-etcd', first.endpoint, ...flags]))
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(reason) })
  }
  expect(await db(dataDir, 'import-etcd', first.endpoint, ...clientFlags(tls))).toMatch(
    /has 1 keys and 0 leases at revision 2\./,
  )
  const second = await runEtcd(join(directory, 'second'), tls)
  await db(dataDir, 'export-etcd', second.endpoint, ...clientFlags(tls))
  expect(await etcdctl(second.endpoint, tls)('get', 'a')).toBe('a\n1\n')
})

/** Those of a cluster: a server's and a client's, of two authorities. */
async function certificates(dir: string): Promise<EtcdTls> {
  mkdirSync(dir)
  const { authorities, leaves } = await preparePki({
    ...{ dir, nodeName: 'one', nodeIp: '127.0.0.1', advertiseAddress: '127.0.0.1', bindAddress: '0.0.0.0' },
    ...{ serviceCidr: '10.96.0.0/12', clusterDomain: 'cluster.local', tlsSan: [] },
  })
  const caFile = join(dir, 'both-authorities.crt')
  const texts = [authorities.server, authorities.client].map(({ certFile }) => readFileSync(certFile, 'utf8'))
  writeFileSync(caFile, texts.join(''))
  return { caFile, server: leaves.apiserver, client: leaves['admin-client'] }
}
