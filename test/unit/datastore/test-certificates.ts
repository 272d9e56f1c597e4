import { type KeyObject, X509Certificate, generateKeyPairSync } from 'node:crypto'
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodeName, issueCertificate, issuerOf, keyIdentifier } from '../../../src/pki/certificate.ts'

const dayMs = 86_400_000

export interface PemPair {
  readonly cert: string
  readonly key: string
}

export interface TestAuthority {
  readonly cert: string
  issue(options: { usage: 'server' | 'client'; names?: string[]; addresses?: string[] }): PemPair
  /** A client's, for a key that somebody else has; PEM. */
  sign(publicKey: KeyObject): string
}

function newKey(): { privateKey: KeyObject; publicKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
}

/** An authority that lives as long as the test. */
export function testAuthority(commonName = 'test'): TestAuthority {
  const { privateKey, publicKey } = newKey()
  const life = { notBefore: new Date(Date.now() - dayMs), notAfter: new Date(Date.now() + dayMs) }
  const subject = { commonName }
  const self = { privateKey, name: encodeName(subject), keyId: keyIdentifier(publicKey) }
  const cert = issueCertificate({ profile: { subject }, publicKey, issuer: self, ...life })
  const issuer = issuerOf({ der: new X509Certificate(cert).raw, privateKey })
  return {
    cert,
    issue(options) {
      const own = newKey()
      const profile = { subject: { commonName: 'leaf' }, ...options }
      return {
        cert: issueCertificate({ profile, publicKey: own.publicKey, issuer, ...life }),
        key: own.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      }
    },
    sign(key) {
      const profile = { subject: { commonName: 'leaf' }, usage: 'client' } as const
      return issueCertificate({ profile, publicKey: key, issuer, ...life })
    },
  }
}

/** Where a server's certificate, its key and the authorities of its clients are. */
export function tlsFilesIn(directory: string): { certFile: string; keyFile: string; trustedCaFile: string } {
  const [certFile = '', keyFile = '', trustedCaFile = ''] = ['tls.crt', 'tls.key', 'ca.crt'].map((name) =>
    join(directory, name),
  )
  return { certFile, keyFile, trustedCaFile }
}

/** Puts a text in the place of a file, as tools that renew certificates do. */
export function replaceFile(path: string, text: string): void {
  writeFileSync(`${path}.new`, text)
  renameSync(`${path}.new`, path)
}
