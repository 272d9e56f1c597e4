import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { TlsIdentity } from '../base/http.ts'
import type { Paths } from '../config/paths.ts'
import { idsOfMember } from '../datastore/etcd-wal.ts'
import { Member } from '../datastore/member.ts'
import { bundleFiles } from '../pki/bundle.ts'
import { etcdClientIdentity, etcdPkiFiles } from '../pki/etcd.ts'

/*
 * An etcd that goes on with a cluster whose members were lost has the ids of those that it has taken the place of: whoever was a member
 * of one of them, and comes back, finds there that its data are of the past.
 */

/** As many resets are remembered. */
const formerLimit = 50
const answerLimitMs = 2_000

export interface Succession {
  /** Ids of etcds, in hexadecimal, the latest last. */
  readonly former: readonly string[]
  /** What the cluster is read with: keysDigest. */
  readonly keys: string
}

export function successionKey(prefix: string): string {
  return `/k8s.local/succession${prefix}`
}

/** What a reset writes: `former` are those that it replaces, as far as they are known. */
export function succeed(
  known: string | undefined,
  { former, keys }: { former: readonly (bigint | undefined)[]; keys: string },
): string {
  const ids = former.flatMap((id) => (id === undefined ? [] : [id.toString(16)]))
  const all = [...new Set([...(parse(known)?.former ?? []), ...ids])]
  return JSON.stringify({ former: all.slice(-formerLimit), keys } satisfies Succession)
}

/** Of all keys that belong to the cluster. */
export async function keysDigest(pkiDir: string): Promise<string> {
  const digest = createHash('sha256')
  for (const { name, path } of bundleFiles(pkiDir)) digest.update(`${name}\n`).update(await readFile(path))
  return digest.digest('hex')
}

export interface Successor {
  readonly endpoint: string
  readonly keys: string
  /** A majority of the former members serves: whoever reset the cluster was cut off from it, and it is nobody's past. */
  readonly isContested: boolean
}

/** Where the cluster of this server's member goes on without it, as far as the members of the others can be asked. */
export async function successorOf(
  { memberDir, pkiDir }: Pick<Paths, 'memberDir' | 'pkiDir'>,
  given: { endpoints: readonly string[]; prefix: string; signal: AbortSignal },
): Promise<Successor | undefined> {
  const ids = idsOfMember(memberDir)
  if (ids === undefined || given.endpoints.length === 0) return undefined
  const tls = etcdClientIdentity(etcdPkiFiles(pkiDir))
  return findSuccessor({ ...given, clusterId: ids.clusterId, tls })
}

/** The first of the endpoints whose etcd has taken the place of that with the id `clusterId`; undefined: none does, of those that answer. */
export async function findSuccessor(given: {
  readonly clusterId: bigint
  readonly endpoints: readonly string[]
  readonly prefix: string
  readonly tls: TlsIdentity
  readonly signal: AbortSignal
}): Promise<Successor | undefined> {
  const { clusterId, endpoints, prefix, tls, signal } = given
  const limited = () => AbortSignal.any([signal, AbortSignal.timeout(answerLimitMs)])
  const look = async (endpoint: string) => {
    using member = new Member({ address: endpoint, tls })
    const found = parse(await member.get(successionKey(prefix), limited()))
    if (found?.former.includes(clusterId.toString(16)) !== true) throw new Error('it is no successor')
    return { endpoint, keys: found.keys }
  }
  const servesFormer = async (endpoint: string) => {
    using member = new Member({ address: endpoint, tls })
    const answer = await member.read(successionKey(prefix), { isLocal: false, signal: limited() })
    if (answer.clusterId !== clusterId) throw new Error('it is another one')
    return true
  }
  const successor = await Promise.any(endpoints.map(look)).catch(() => undefined)
  if (successor === undefined) return undefined
  const isContested = await Promise.any(endpoints.map(servesFormer)).catch(() => false)
  return { ...successor, isContested }
}

function parse(text: string | undefined): Succession | undefined {
  try {
    const { former, keys } = JSON.parse(text ?? '') as Partial<Record<keyof Succession, unknown>>
    if (!Array.isArray(former) || typeof keys !== 'string') return undefined
    return { former: former.filter((id) => typeof id === 'string'), keys }
  } catch {
    return undefined
  }
}
