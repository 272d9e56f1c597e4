import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  X509Certificate,
} from 'node:crypto'
import { join } from 'node:path'
import { earliestClock } from '../base/clock.ts'
import { AppError } from '../base/errors.ts'
import { narrowMode, privateMode, publicMode, readFileIfPresent, writeFileAtomically } from '../base/files.ts'
import { encodeName, type Issuer, issueCertificate, issuerOf, keyIdentifier } from './certificate.ts'

/**
 * Authorities of their own for what must not stand in for one another: who serves (server), who may
 * log in (client), and who may log in for others (requestHeader, the front proxy).
 */
export const authorityNames = ['server', 'client', 'requestHeader'] as const
export type ClusterAuthorityName = (typeof authorityNames)[number]
/** etcd's is there only where servers have members of their own (etcd.ts). */
export type AuthorityName = ClusterAuthorityName | 'etcd'

const baseNames: Readonly<Record<AuthorityName, string>> = {
  server: 'server-ca',
  client: 'client-ca',
  requestHeader: 'request-header-ca',
  etcd: 'etcd-ca',
}

export const dayMs = 86_400_000
const authorityLifeMs = 3650 * dayMs
/** An authority with less than this left is warned of: everything that trusts it must be told. */
const warningMs = 365 * dayMs

export interface KeyPairFiles {
  readonly certFile: string
  readonly keyFile: string
}

export interface Authority {
  readonly name: AuthorityName
  readonly certificate: X509Certificate
  readonly certificatePem: string
  readonly issuer: Issuer
  /** Why its certificate was made again from its key just now, as the end of "renewed because ...". */
  readonly renewedBecause?: string
}

export function authorityFiles(dir: string, name: AuthorityName): KeyPairFiles {
  return { certFile: join(dir, `${baseNames[name]}.crt`), keyFile: join(dir, `${baseNames[name]}.key`) }
}

/**
 * The authority kept in `dir`. One that is there, the daemon's or the user's own, is used as it is. The daemon's own
 * certificate is made again from its key when it is missing, or is not valid now, so that what it has signed goes on. A
 * damaged one is an error, as a new one would turn away every client of the old. With `mayCreate` a missing one
 * is created.
 */
export async function openAuthority({
  dir,
  name,
  now,
  mayCreate,
}: {
  dir: string
  name: AuthorityName
  now: Date
  mayCreate: boolean
}): Promise<Authority> {
  const files = authorityFiles(dir, name)
  const [certificatePem, keyPem] = await Promise.all([
    readFileIfPresent(files.certFile),
    readFileIfPresent(files.keyFile),
  ])
  if (keyPem === undefined) {
    if (certificatePem !== undefined) throw damaged(files.keyFile, 'its key is missing')
    if (!mayCreate) throw damaged(files.certFile, 'it is missing')
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    return writeAuthority({ files, name, now, privateKey, isNew: true })
  }
  await narrowMode(files.keyFile, privateMode)
  const privateKey = readKey(files.keyFile, keyPem)
  if (certificatePem === undefined) return writeAuthority({ files, name, now, privateKey, isNew: false })
  const certificate = readCertificate(files.certFile, certificatePem)
  requireUsable({ path: files.certFile, certificate, privateKey })
  const fault = validityFault(certificate, now)
  if (fault !== undefined) {
    if (certificate.subject !== `CN=${ownName(name, privateKey)}`)
      throw notValid(files.certFile, certificate, now)
    const made = await writeAuthority({ files, name, now, privateKey, isNew: false })
    return { ...made, renewedBecause: fault }
  }
  return { name, certificate, certificatePem, issuer: issuerOf({ der: certificate.raw, privateKey }) }
}

/** One that is in no directory, of its PEM texts. Throws when it cannot sign. */
export function authorityOf(
  name: AuthorityName,
  { certificate: certificatePem, key }: { certificate: string; key: string },
): Authority {
  const certificate = new X509Certificate(certificatePem)
  const issuer = issuerOf({ der: certificate.raw, privateKey: createPrivateKey(key) })
  return { name, certificate, certificatePem, issuer }
}

/** One sentence when the authority ends within a year. */
export function authorityWarning({ certificate, name }: Authority, now: Date): string | undefined {
  if (certificate.validToDate.getTime() - now.getTime() > warningMs) return undefined
  return `the ${baseNames[name]} expires on ${dayOf(certificate.validToDate)}`
}

/** Refuses to date anything by a clock that was never set. */
export function requirePlausibleClock(now: Date): void {
  if (now >= earliestClock) return
  throw new AppError(`cannot make certificates: the clock says ${now.toISOString()}`, {
    code: 'PKI_CLOCK',
    remedy: 'set the clock of this machine (or start a time service) and start again',
  })
}

async function writeAuthority(made: {
  files: KeyPairFiles
  name: AuthorityName
  now: Date
  privateKey: KeyObject
  isNew: boolean
}): Promise<Authority> {
  const { files, name, now, privateKey, isNew } = made
  requirePlausibleClock(now)
  const publicKey = createPublicKey(privateKey)
  const subject = { commonName: ownName(name, privateKey) }
  const issuer = { privateKey, name: encodeName(subject), keyId: keyIdentifier(publicKey) }
  const certificatePem = issueCertificate({
    profile: { subject },
    publicKey,
    issuer,
    // Whatever a clock says that was set wrong now, or will be: this and all that it signs are not too young for it.
    notBefore: earliestClock,
    notAfter: new Date(now.getTime() + authorityLifeMs),
  })
  // The key first: a certificate without its key is what a crash must not leave.
  if (isNew)
    await writeFileAtomically(files.keyFile, exportKey(privateKey), {
      mode: privateMode,
      durable: 'contents',
    })
  await writeFileAtomically(files.certFile, certificatePem, { mode: publicMode, durable: 'contents' })
  return { name, certificate: new X509Certificate(certificatePem), certificatePem, issuer }
}

/** It comes from the key, so that a certificate made again from that is the same authority's. */
function ownName(name: AuthorityName, privateKey: KeyObject): string {
  return `k8s-${baseNames[name]}@${keyIdentifier(createPublicKey(privateKey)).toString('hex', 0, 6)}`
}

export function exportKey(privateKey: KeyObject): string {
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
}

function readKey(path: string, pem: string): KeyObject {
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    throw damaged(path, 'it holds no private key', { cause })
  }
}

function readCertificate(path: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem)
  } catch (cause) {
    throw damaged(path, 'it holds no certificate', { cause })
  }
}

function requireUsable(found: { path: string; certificate: X509Certificate; privateKey: KeyObject }): void {
  const { path, certificate, privateKey } = found
  if (!certificate.checkPrivateKey(privateKey)) throw damaged(path, 'its key is another one')
  if (!certificate.ca) throw damaged(path, 'it may not sign certificates (no CA:TRUE in it)')
}

/** Why a certificate is not valid now, as the end of "renewed because ..."; undefined: it is. */
export function validityFault(certificate: X509Certificate, now: Date): string | undefined {
  const { validFromDate, validToDate } = certificate
  if (now < validFromDate) return `it would be valid only from ${dayOf(validFromDate)} on`
  return now >= validToDate ? `it expired on ${dayOf(validToDate)}` : undefined
}

export function dayOf(date: Date): string {
  return date.toISOString().slice(0, 10)
}

function notValid(path: string, { validFromDate, validToDate }: X509Certificate, now: Date): AppError {
  return new AppError(
    `cannot use ${path}: it is valid from ${validFromDate.toISOString()} to ${validToDate.toISOString()}, ` +
      `and the clock says ${now.toISOString()}`,
    {
      code: 'PKI_AUTHORITY_VALIDITY',
      path,
      remedy:
        now < validFromDate
          ? 'set the clock of this machine'
          : 'if the clock is right, give the cluster a new authority: put its certificate and key in place of the old files',
    },
  )
}

function damaged(path: string, reason: string, options?: ErrorOptions): AppError {
  return new AppError(
    `cannot use ${path}: ${reason}`,
    {
      code: 'PKI_AUTHORITY',
      path,
      remedy:
        'restore a snapshot that has it (k8s snapshot restore), or a backup of the pki directory; or remove the whole cluster with `k8s reset`',
    },
    options,
  )
}
