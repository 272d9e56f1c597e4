import { X509Certificate } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { isIP } from 'node:net'
import { type Server, type TlsOptions, createSecureContext } from 'node:tls'

import { AppError, describeError, errorCode } from '../../base/errors.ts'
import type { RareLog } from '../../base/rare-log.ts'

/** Import this where TLS is used, when it is: node:tls takes as long to load as the rest of a start. */

/** With a trusted CA, clients must show a certificate of it. */
export interface TlsFiles {
  readonly certFile: string
  readonly keyFile: string
  readonly trustedCaFile?: string | undefined
}

interface Material {
  readonly cert: Buffer
  readonly key: Buffer
  readonly ca?: Buffer
}

/** What a client that has not shaken hands by then is let go after. */
const handshakeTimeoutMs = 10_000
const pemCertificate = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g

/**
 * The certificates of a server, as they are on the disk when a client connects. While new ones cannot be used (a
 * certificate whose key has not been written yet, say) the former ones stay in use.
 */
export class Certificates {
  readonly #files: TlsFiles
  readonly #log: RareLog
  #material: Material
  #leaf: X509Certificate
  /** Of the files when they were read last, whatever came of it. */
  #stamp: string

  /** Throws an AppError with the code DATASTORE_TLS when they cannot be used. */
  constructor(files: TlsFiles, log: RareLog) {
    this.#files = files
    this.#log = log
    this.#stamp = stampOf(files)
    try {
      this.#material = read(files)
    } catch (thrown) {
      throw new AppError(
        `cannot use the certificate ${files.certFile}`,
        {
          code: 'DATASTORE_TLS',
          remedy: 'Give a certificate in PEM, its key, and the authorities of clients.',
        },
        { cause: thrown },
      )
    }
    this.#leaf = new X509Certificate(this.#material.cert)
  }

  /** What a server is made with. */
  get options(): TlsOptions {
    const clients = this.#material.ca === undefined ? {} : { requestCert: true, rejectUnauthorized: true }
    return { ...this.#material, ...clients, handshakeTimeout: handshakeTimeoutMs }
  }

  /** Whether a client that goes to a host, by name or address, finds it in the certificate. */
  hasName(host: string): boolean {
    if (isIP(host) !== 0) return this.#leaf.checkIP(host) !== undefined
    // Go's clients take no common name for a name.
    return this.#leaf.checkHost(host, { subject: 'never' }) !== undefined
  }

  /** The DNS names of the certificate, without those that stand for others. */
  get names(): string[] {
    const names = (this.#leaf.subjectAltName ?? '').matchAll(/(?:^|, )DNS:([^,*"]+)(?=,|$)/g)
    return [...names].map(([, name = '']) => name)
  }

  /** Has each client that connects from now on meet what is on the disk then. */
  follow(server: Server): void {
    // Before the listener that begins the handshake.
    server.prependListener('connection', () => {
      const stamp = stampOf(this.#files)
      if (stamp === this.#stamp) return
      this.#stamp = stamp
      try {
        const material = read(this.#files)
        server.setSecureContext(material)
        this.#leaf = new X509Certificate(material.cert)
        this.#material = material
      } catch (thrown) {
        const { certFile } = this.#files
        const error = describeError(thrown)
        this.#log.warn({ certFile, error }, 'cannot take up new certificates: the former ones stay in use')
      }
    })
  }
}

/** Reads all files, and makes sure that they go together: OpenSSL would trust everybody's authorities for an empty file. */
function read({ certFile, keyFile, trustedCaFile }: TlsFiles): Material {
  const material: Material = {
    cert: readFileSync(certFile),
    key: readFileSync(keyFile),
    ...(trustedCaFile !== undefined && { ca: readFileSync(trustedCaFile) }),
  }
  if (material.ca !== undefined) {
    const authorities = material.ca.toString('latin1').match(pemCertificate) ?? []
    if (authorities.length === 0) throw new Error(`there is no certificate in ${trustedCaFile}`)
    for (const authority of authorities) void new X509Certificate(authority)
  }
  createSecureContext(material)
  return material
}

/** Changes with whatever happens to one of the files, also with another file under its name. */
function stampOf({ certFile, keyFile, trustedCaFile }: TlsFiles): string {
  const stamps = [certFile, keyFile, trustedCaFile ?? ''].map((path) => {
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true })
      return [dev, ino, size, mtimeNs, ctimeNs].join('.')
    } catch (thrown) {
      // Gone, a link that leads in a circle, a disk that does not answer: reading it says so.
      return errorCode(thrown)
    }
  })
  return stamps.join()
}
