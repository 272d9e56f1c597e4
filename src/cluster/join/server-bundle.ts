/*
 * What a further server is given of the cluster: the keys that belong to it and not to one machine, and what was fixed when it was
 * created. It is a Secret for each token, sealed with the key that is in that token and nowhere else: who can read the Secrets of the
 * cluster has not got it, and who has the token has the cluster.
 *
 *    kube-system/k8s-server-bundle-<id>     pki/sealed-text.ts
 *
 * It belongs to the token's own Secret, and goes with it.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { authorityFiles, authorityNames } from '../../pki/authority.ts'
import { authorityHash } from '../../pki/authority-hash.ts'
import { bundleFiles, requireWholeBundle } from '../../pki/bundle.ts'
import { openText, sealedExtraBytes, sealText } from '../../pki/sealed-text.ts'

/** Some kilobytes, and what users have made of their authorities and encryption keys. */
const bundleLimitBytes = 512 * 1024
const formatVersion = 1

/** The key of the Secret's data. */
export const bundleKey = 'bundle'
export const bundleNamespace = 'kube-system'

export function bundleName(tokenId: string): string {
  return `k8s-server-bundle-${tokenId}`
}

export interface ServerBundle {
  /** By their names in the directory of keys. */
  readonly files: Readonly<Record<string, string>>
  /** The facts of the cluster, as its record has them. */
  readonly cluster: Readonly<Record<string, string>>
}

interface SealOptions {
  /** Of the token: 64 hex digits. */
  readonly key: string
  /** What it is bound to, so that it cannot stand in for another one's: the hash of the authority. */
  readonly caHash: string
}

/** That of the cluster in a directory of keys. Rejects with PKI_INCOMPLETE. */
export async function readBundle(dir: string, cluster: ServerBundle['cluster']): Promise<ServerBundle> {
  const files = await requireWholeBundle(dir, 'make a token for servers', kindOf(cluster))
  const texts = files.map(async ({ name, path }) => [name, await readFile(path, 'utf8')] as const)
  return { cluster, files: Object.fromEntries(await Promise.all(texts)) }
}

export function sealBundle(bundle: ServerBundle, { key, caHash }: SealOptions): Buffer {
  return sealText(JSON.stringify({ formatVersion, ...bundle }), Buffer.from(key, 'hex'), caHash)
}

/** Throws an Error that says, as the end of "the bundle ...", what is wrong with it, and shows nothing of what is in it. */
export function openBundle(sealed: Buffer, { key, caHash }: SealOptions): ServerBundle {
  if (sealed.length < sealedExtraBytes || sealed.length > bundleLimitBytes)
    throw new Error(`has ${sealed.length} bytes, as none has`)
  let text: string
  try {
    text = openText(sealed, Buffer.from(key, 'hex'), caHash)
  } catch {
    throw new Error('cannot be opened with this token')
  }
  return checked(JSON.parse(text) as Sealed, caHash)
}

/** Whoever sealed it had the token, and may be another version of this program. */
interface Sealed extends Partial<ServerBundle> {
  readonly formatVersion?: unknown
}

function checked({ formatVersion: version, files = {}, cluster = {} }: Sealed, caHash: string): ServerBundle {
  if (version !== formatVersion)
    throw new Error(`has the format ${String(version)}; this version of k8s reads ${formatVersion}`)
  const whole = bundleFiles('pki', kindOf(cluster)).map(({ name }) => {
    const text: unknown = files[name]
    if (typeof text !== 'string' || text === '') throw new Error(`lacks ${name}`)
    return [name, text] as const
  })
  const isText = Object.values(cluster).every((value) => typeof value === 'string')
  if (!isText) throw new Error('has no facts of a cluster that can be read')
  const bundle = { files: Object.fromEntries(whole), cluster }
  requirePairs(bundle)
  if (authorityHash(pairOf(bundle, 'server').certificate) !== caHash)
    throw new Error('is that of another cluster')
  return bundle
}

/** An authority of the bundle, PEM. */
export function pairOf(
  { files }: Pick<ServerBundle, 'files'>,
  name: (typeof authorityNames)[number],
): { certificate: string; key: string } {
  const { certFile, keyFile } = authorityFiles('', name)
  return { certificate: files[certFile] ?? '', key: files[keyFile] ?? '' }
}

function requirePairs(bundle: ServerBundle): void {
  for (const name of authorityNames) {
    const { certificate, key } = pairOf(bundle, name)
    let isPair = false
    try {
      isPair = new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key))
    } catch {
      // Told below, without what it is.
    }
    if (!isPair) throw new Error(`has an authority whose key is not its own: ${name}`)
  }
}

function kindOf(cluster: ServerBundle['cluster']): { hasMembers: boolean } {
  return { hasMembers: cluster['cluster-init'] === 'true' }
}
