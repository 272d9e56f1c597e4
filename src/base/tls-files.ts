import { readFileSync } from 'node:fs'
import { AppError } from './errors.ts'
import type { TlsIdentity } from './http.ts'

/** The PEM files of what a client shows and trusts. */
export interface TlsClientFiles {
  readonly caFile?: string | undefined
  readonly certFile?: string | undefined
  readonly keyFile?: string | undefined
}

/** Throws TLS_FILE, which names the file. */
export function readTlsIdentity({ caFile, certFile, keyFile }: TlsClientFiles): TlsIdentity {
  return { ca: readPem(caFile), cert: readPem(certFile), key: readPem(keyFile) }
}

/** Without an authority in it, a file would have the system's trusted. */
function readPem(path: string | undefined): string | undefined {
  if (path === undefined) return undefined
  try {
    const text = readFileSync(path, 'utf8')
    if (!text.includes('-----BEGIN ')) throw new Error('there is nothing in PEM in it')
    return text
  } catch (cause) {
    throw new AppError(`cannot read ${path}`, { code: 'TLS_FILE', path }, { cause })
  }
}
