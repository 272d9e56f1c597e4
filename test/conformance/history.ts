/*
 * A short history with everything that a copy of a datastore has to keep, and what there is to compare.
 */
import { type Etcdctl, etcdctl, transact } from './etcd-peer.ts'

/** What `writeHistory` compacts at. */
export const compactedRevision = 6

const leaseTtlSeconds = '3600'

/** Puts, updates, deletes and recreated keys, a large and an empty value, transactions, leases, a compaction. */
export async function writeHistory(endpoint: string): Promise<void> {
  const ctl = etcdctl(endpoint)
  await ctl('put', 'a', '1')
  await ctl('put', 'b', '1')
  await ctl('put', 'a', '2')
  await ctl('del', 'b')
  await ctl('put', 'dir/1', 'x'.repeat(100_000))
  await transact(endpoint, 'put dir/2 ""', 'put dir/3 three', 'del a')
  await ctl('del', 'dir/', '--prefix')
  await ctl('put', 'b', 'again')
  const [, lease = ''] = (await ctl('lease', 'grant', leaseTtlSeconds)).split(' ')
  await ctl('lease', 'grant', leaseTtlSeconds)
  await ctl('put', 'leased', '1', `--lease=${lease}`)
  await ctl('put', 'é\tkey', 'ümlaut')
  await ctl('compaction', String(compactedRevision), '--physical')
  await ctl('put', 'dir/1', 'new')
  await transact(endpoint, 'put leased 2', `put other 1 --lease=${lease}`, 'del b')
}

interface Response {
  readonly header: { readonly revision: number }
  readonly kvs?: readonly object[]
}

/** etcd's own digest of everything that is kept, up to the newest revision. */
async function hashOf(ctl: Etcdctl): Promise<object> {
  const [{ HashKV }] = JSON.parse(await ctl('endpoint', 'hashkv', '-w', 'json')) as [
    { HashKV: { hash: number; compact_revision: number; hash_revision: number } },
  ]
  const { hash, compact_revision: compactRevision, hash_revision: revision } = HashKV
  return { hash, compactRevision, revision }
}

/** All keys at each revision that is readable, and the leases with their keys. */
export async function states(
  ctl: Etcdctl,
): Promise<{ revision: number; kvs: object[]; leases: object[]; hash: object }> {
  const get = async (...args: string[]) =>
    JSON.parse(await ctl('get', '', '--from-key', '-w', 'json', ...args)) as Response
  const { revision } = (await get('--limit=1')).header
  const kvs = []
  for (let at = compactedRevision; at <= revision; at++) kvs.push((await get(`--rev=${at}`)).kvs ?? [])
  const { leases: listed } = JSON.parse(await ctl('lease', 'list', '-w', 'json')) as {
    leases: { ID: number }[]
  }
  const ids = (await ctl('lease', 'list')).split('\n').filter((line) => /^[0-9a-f]{16}$/.test(line))
  const leases = []
  for (const id of ids.toSorted()) {
    const text = await ctl('lease', 'timetolive', id, '--keys')
    leases.push({ id, text: text.replace(/remaining\(\d+s\)/, 'remaining') })
  }
  if (leases.length !== listed.length) throw new Error(`leases are listed as ${JSON.stringify(listed)}`)
  return { revision, kvs, leases, hash: await hashOf(ctl) }
}
