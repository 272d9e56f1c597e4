import { createHash, X509Certificate } from 'node:crypto'

/**
 * By what an authority is known wherever its certificate may be made anew: SHA-256 of its SubjectPublicKeyInfo, 64 hex digits
 * (kubeadm's pubkeypin).
 */
export function authorityHash(certificatePem: string): string {
  const spki = new X509Certificate(certificatePem).publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(spki).digest('hex')
}
