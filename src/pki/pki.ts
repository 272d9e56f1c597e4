/*
 * What is below ${dataDir}/pki:
 *
 *    server-ca ---------> apiserver, controller-manager, scheduler, kubelet (who serves)
 *    client-ca ---------> *-client (who logs in)
 *    request-header-ca -> front-proxy-client (who logs in for others)
 *    service-account.{key,pub}, encryption-config.yaml
 *
 * The keys of the first column and the last line are made once and kept for the cluster's life; certificates of
 * either column are issued anew whenever one does not fit any more.
 */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { allDone } from '../base/all-done.ts'
import {
  narrowMode,
  preparePrivateDirectory,
  privateMode,
  publicMode,
  readFileIfPresent,
  syncDirectory,
  writeTogether,
} from '../base/files.ts'
import type { TlsIdentity } from '../base/http.ts'
import {
  type Authority,
  authorityFiles,
  type AuthorityName,
  authorityNames,
  authorityWarning,
  type KeyPairFiles,
  openAuthority,
  requirePlausibleClock,
} from './authority.ts'
import {
  type ClusterIdentity,
  issueLeaf,
  type Leaf,
  leafFiles,
  leafNames,
  type LeafName,
  leaves,
  renewalOf,
} from './leaves.ts'
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
  readonly authorities: Readonly<Record<AuthorityName, KeyPairFiles>>
  readonly leaves: Readonly<Record<LeafName, KeyPairFiles>>
}

interface Renewal {
  /** Of the files, without their ending. */
  readonly name: string
  /** The end of "renewed because ...". */
  readonly reason: string
}

interface LeafRenewal extends Renewal {
  readonly name: LeafName
  readonly canWait: boolean
}

/** What could not be written, while the certificate that is there can still be used. */
interface PutOff extends Renewal {
  readonly cause: unknown
}

export interface Pki extends PkiFiles {
  /** What this call issued; on a first start everything. */
  readonly renewed: readonly Renewal[]
  /** What is to be issued as soon as it can be. */
  readonly putOff: readonly PutOff[]
  /** A sentence for each authority that ends within a year. */
  readonly warnings: readonly string[]
}

/** Pure: no file is looked at. */
export function pkiFiles(dir: string): PkiFiles {
  const record = <Name extends string>(names: readonly Name[], files: (name: Name) => KeyPairFiles) =>
    Object.fromEntries(names.map((name) => [name, files(name)])) as Record<Name, KeyPairFiles>
  return {
    dir,
    authorities: record(authorityNames, (name) => authorityFiles(dir, name)),
    leaves: record(leafNames, (name) => leafFiles(dir, name)),
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
  const due = await findRenewals({ files, authorities, identity, now })
  if (due.length > 0) requirePlausibleClock(now)
  const table = leaves(identity)
  const putOff: PutOff[] = []
  await allDone(
    due.map(async ({ name, reason, canWait }) => {
      try {
        await writeLeaf({ files: files.leaves[name], leaf: table[name], authorities, now })
      } catch (cause) {
        if (!canWait) throw cause
        putOff.push({ name, reason, cause })
      }
    }),
  )
  const warnings = authorities.map((authority) => authorityWarning(authority, now))
  const issued = due.filter(({ name }) => !putOff.some((late) => late.name === name))
  const renewed = [
    ...authorities.flatMap(authorityRenewal),
    ...issued.map(({ name, reason }) => ({ name, reason })),
  ]
  return { ...files, renewed, putOff, warnings: warnings.filter((warning) => warning !== undefined) }
}

/** What the daemon shows and trusts as one of its clients, from the files as they are now. */
export async function readIdentity(files: PkiFiles, name: LeafName): Promise<TlsIdentity> {
  const { certFile, keyFile } = files.leaves[name]
  const [ca, cert, key] = await Promise.all(
    [files.authorities.server.certFile, certFile, keyFile].map((path) => readFile(path, 'utf8')),
  )
  return { ca: ca ?? '', cert: cert ?? '', key: key ?? '' }
}

function authorityRenewal({ name, renewedBecause: reason }: Authority): Renewal[] {
  return reason === undefined ? [] : [{ name: basename(authorityFiles('', name).certFile, '.crt'), reason }]
}

/** A cluster ran from this directory: certificates are issued only after every authority and key is there. */
function hasServed(files: PkiFiles): boolean {
  return leafNames.some((name) => existsSync(files.leaves[name].certFile))
}

function openAuthorities(options: { dir: string; now: Date; mayCreate: boolean }): Promise<Authority[]> {
  return allDone(authorityNames.map((name) => openAuthority({ name, ...options })))
}

async function findRenewals(given: {
  files: PkiFiles
  authorities: readonly Authority[]
  identity: ClusterIdentity
  now: Date
}): Promise<LeafRenewal[]> {
  const { files, authorities, identity, now } = given
  const table = leaves(identity)
  const found = await Promise.all(
    leafNames.map(async (name) => {
      const { certFile, keyFile } = files.leaves[name]
      const [certificatePem, keyPem] = await Promise.all([
        readFileIfPresent(certFile),
        readFileIfPresent(keyFile),
      ])
      if (keyPem !== undefined) await narrowMode(keyFile, privateMode)
      const authority = authorityOf(authorities, table[name])
      const renewal = renewalOf({ leaf: table[name], authority, certificatePem, keyPem, now })
      return renewal === undefined ? undefined : { name, ...renewal }
    }),
  )
  return found.filter((renewal) => renewal !== undefined)
}

/** One that a power cut damages is issued anew at the next start, so nobody waits for the disk. */
async function writeLeaf(given: {
  files: KeyPairFiles
  leaf: Leaf
  authorities: readonly Authority[]
  now: Date
}): Promise<void> {
  const { files, leaf, authorities, now } = given
  const { certificate, key } = issueLeaf(leaf, authorityOf(authorities, leaf), now)
  await writeTogether([
    { path: files.keyFile, contents: key, mode: privateMode, durable: 'nothing' },
    { path: files.certFile, contents: certificate, mode: publicMode, durable: 'nothing' },
  ])
}

function authorityOf(authorities: readonly Authority[], leaf: Leaf): Authority {
  const authority = authorities.find(({ name }) => name === leaf.authority)
  if (authority === undefined) throw new Error(`bug: no authority ${leaf.authority}`)
  return authority
}
