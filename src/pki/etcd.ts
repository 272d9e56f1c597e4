/*
 * What the members of an etcd that servers bring trust and show. The authority is theirs alone: no certificate of the
 * cluster opens etcd, and none of etcd's opens the API. It belongs to the cluster; the certificates are each server's own.
 */
import { existsSync } from 'node:fs'
import { preparePrivateDirectory, syncDirectory } from '../base/files.ts'
import type { TlsIdentity } from '../base/http.ts'
import { readTlsIdentity } from '../base/tls-files.ts'
import { authorityFiles, type KeyPairFiles, openAuthority } from './authority.ts'
import { type Leaf, leafFiles, splitNames } from './leaves.ts'
import { type Renewals, renewLeaves } from './renewals.ts'

const leafNames = ['server', 'peer', 'client'] as const
type EtcdLeafName = (typeof leafNames)[number]

/** What a member's certificate says among its peers: a client's is turned away there (--peer-cert-allowed-cn). */
export const etcdPeerName = 'k8s-etcd-peer'

export interface EtcdPkiFiles {
  readonly authority: KeyPairFiles
  readonly leaves: Readonly<Record<EtcdLeafName, KeyPairFiles>>
}

/** Pure: no file is looked at. */
export function etcdPkiFiles(dir: string): EtcdPkiFiles {
  const [server, peer, client] = leafNames.map((name) => leafFiles(dir, `etcd-${name}`)) as [
    KeyPairFiles,
    KeyPairFiles,
    KeyPairFiles,
  ]
  return { authority: authorityFiles(dir, 'etcd'), leaves: { server, peer, client } }
}

/** What a client of the members shows and trusts, read anew at each call. */
export function etcdClientIdentity({ authority, leaves }: EtcdPkiFiles): TlsIdentity {
  return readTlsIdentity({ caFile: authority.certFile, ...leaves.client })
}

/**
 * As `preparePki`, and after it: repeatable, at every start and while etcd runs, which reads its certificates for every
 * connection (client/pkg/transport/listener.go).
 */
export async function prepareEtcdPki(given: {
  readonly dir: string
  /** No member has run yet: a missing authority is made. */
  readonly isNew: boolean
  /** At which peers reach this server, and from which it reaches them. */
  readonly nodeIp: string
  readonly now?: Date
}): Promise<Renewals> {
  const { dir, isNew, nodeIp, now = new Date() } = given
  await preparePrivateDirectory(dir)
  const files = etcdPkiFiles(dir)
  const mayCreate = isNew && !Object.values(files.leaves).some(({ certFile }) => existsSync(certFile))
  const authority = await openAuthority({ name: 'etcd', dir, now, mayCreate })
  if (mayCreate) await syncDirectory(dir)
  const table = etcdLeaves(nodeIp)
  const wanted = leafNames.map((name) => ({
    name: `etcd-${name}`,
    leaf: table[name],
    files: files.leaves[name],
  }))
  return renewLeaves({ wanted, authorities: [authority], now })
}

/** Of a cluster that is kept in an etcd of its servers from now on; one that is there stays. */
export async function makeEtcdAuthority(dir: string, now: Date = new Date()): Promise<void> {
  await openAuthority({ name: 'etcd', dir, now, mayCreate: true })
}

/** Whether a file of the directory belongs to its authority, or to a member. */
export function isOfEtcd(fileName: string): boolean {
  return fileName.startsWith('etcd-')
}

function etcdLeaves(nodeIp: string): Readonly<Record<EtcdLeafName, Leaf>> {
  const names = (...more: readonly string[]) => splitNames(['localhost', '127.0.0.1', '::1', ...more])
  const leaf = (profile: Leaf['profile']): Leaf => ({ authority: 'etcd', profile })
  return {
    server: leaf({ subject: { commonName: 'k8s-etcd' }, usage: 'server', ...names(nodeIp) }),
    // Whoever comes from another address than these is no peer.
    peer: leaf({ subject: { commonName: etcdPeerName }, usage: 'peer', ...names(nodeIp) }),
    client: leaf({ subject: { commonName: 'k8s-etcd-client' }, usage: 'client' }),
  }
}
