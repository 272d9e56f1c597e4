/*
 * What is below ${dataDir}/pki:
 *
 *    server-ca ---------> apiserver, controller-manager, scheduler, kubelet (who serves)
 *    client-ca ---------> *-client (who logs in)
 *    request-header-ca -> front-proxy-client (who logs in for others)
 *    service-account.{key,pub}, encryption-config.yaml
 *
 * and where servers have members of an etcd (etcd.ts):
 *
 *    etcd-ca ----------> etcd-server, etcd-peer, etcd-client
 *
 * The keys of the first column and its last line are made once and kept for the cluster's life; certificates of
 * either column are issued anew whenever one does not fit any more.
 */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { allDone } from '../base/all-done.ts'
import { preparePrivateDirectory, syncDirectory } from '../base/files.ts'
import type { TlsIdentity } from '../base/http.ts'
import {
  type Authority,
  authorityFiles,
  authorityNames,
  type ClusterAuthorityName,
  type KeyPairFiles,
  openAuthority,
  requirePlausibleClock,
} from './authority.ts'
import { type EtcdPkiFiles, etcdPkiFiles } from './etcd.ts'
import { type ClusterIdentity, leafFiles, leafNames, type LeafName, leaves } from './leaves.ts'
import { type Renewals, renewLeaves } from './renewals.ts'
import { prepareSecrets, secretFiles, type SecretFiles } from './secrets.ts'

export interface PkiOptions extends ClusterIdentity {
  /** ${dataDir}/pki, absolute. */
  readonly dir: string
  /** A new cluster's: no authority, key or secret has been used yet, so missing ones are made. Default: true. */
  readonly isNew?: boolean
  /** Default: the clock. */
  readonly now?: Date
}

/** Where the files are. */
export interface PkiFiles extends SecretFiles {
  readonly dir: string
  readonly authorities: Readonly<Record<ClusterAuthorityName, KeyPairFiles>>
  readonly leaves: Readonly<Record<LeafName, KeyPairFiles>>
  readonly etcd: EtcdPkiFiles
}

export interface Pki extends PkiFiles, Renewals {}

/** Pure: no file is looked at. */
export function pkiFiles(dir: string): PkiFiles {
  const record = <Name extends string>(names: readonly Name[], files: (name: Name) => KeyPairFiles) =>
    Object.fromEntries(names.map((name) => [name, files(name)])) as Record<Name, KeyPairFiles>
  return {
    dir,
    authorities: record(authorityNames, (name) => authorityFiles(dir, name)),
    leaves: record(leafNames, (name) => leafFiles(dir, name)),
    etcd: etcdPkiFiles(dir),
    ...secretFiles(dir),
  }
}

/**
 * Brings the directory in order: makes what is missing, issues anew what does not fit or is not valid now (see
 * `renewalOf`), narrows the modes of keys. Repeatable, at every start and while the cluster runs:
 * every component reads a certificate that was replaced again by itself, so none has to be restarted
 * (kube-apiserver, kube-controller-manager and kube-scheduler: apiserver's dynamiccertificates; kubelet:
 * ReloadKubeletServerCertificateFile; clients: client-go's transport reloads files that a kubeconfig names).
 * Rejects with an AppError when an authority or a key cannot be used, and replaces none.
 */
export async function preparePki(options: PkiOptions): Promise<Pki> {
  const { dir, isNew = true, now = new Date(), ...identity } = options
  await preparePrivateDirectory(dir)
  const files = pkiFiles(dir)
  const mayCreate = isNew && !hasServed(files)
  if (mayCreate) requirePlausibleClock(now)
  const [authorities] = await allDone([
    openAuthorities({ dir, now, mayCreate }),
    prepareSecrets({ dir, mayCreate }),
  ])
  // Certificates that outlived the authority or key they belong to would tell the next start that the
  // cluster had served: the first column reaches the disk before the second is begun.
  if (mayCreate) await syncDirectory(dir)
  const table = leaves(identity)
  const wanted = leafNames.map((name) => ({ name, leaf: table[name], files: files.leaves[name] }))
  return { ...files, ...(await renewLeaves({ wanted, authorities, now })) }
}

/** What the daemon shows and trusts as one of its clients, from the files as they are now. */
export async function readIdentity(files: PkiFiles, name: LeafName): Promise<TlsIdentity> {
  const { certFile, keyFile } = files.leaves[name]
  const [ca, cert, key] = await Promise.all(
    [files.authorities.server.certFile, certFile, keyFile].map((path) => readFile(path, 'utf8')),
  )
  return { ca: ca ?? '', cert: cert ?? '', key: key ?? '' }
}

/** A cluster ran from this directory: certificates are issued only after every authority and key is there. */
function hasServed(files: PkiFiles): boolean {
  return leafNames.some((name) => existsSync(files.leaves[name].certFile))
}

function openAuthorities(options: { dir: string; now: Date; mayCreate: boolean }): Promise<Authority[]> {
  return allDone(authorityNames.map((name) => openAuthority({ name, ...options })))
}
