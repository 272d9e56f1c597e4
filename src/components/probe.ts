import { readFile } from 'node:fs/promises'
import { connect, isIPv6 } from 'node:net'
import { request, type TlsIdentity } from '../base/https.ts'
import type { Config } from '../config/config.ts'
import type { PkiFiles } from '../pki/pki.ts'

/** A probe that hangs is a probe that failed. */
const probeTimeoutMs = 2_000

/** Resolves when `url` answers with a 2xx. */
export async function probeHttp({
  url,
  tls,
  signal,
}: {
  url: string
  tls?: TlsIdentity
  signal: AbortSignal
}): Promise<string> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(probeTimeoutMs)])
  const { status, body } = await request({ url, ...(tls && { tls }), signal: limited })
  if (status < 200 || status > 299) throw new Error(`${url} answers ${status}: ${body.slice(0, 300)}`)
  return body
}

/** Resolves when somebody accepts connections at the Unix socket. */
export function probeSocket(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => {
      socket.destroy()
      resolve()
    })
    socket.setTimeout(probeTimeoutMs, () => socket.destroy(new Error(`${path} does not answer`)))
    socket.on('error', reject)
  })
}

/** Health is open to all; the probe checks who answers, and shows nothing of its own. */
export async function probeWithAuthority({
  pki,
  url,
  signal,
}: {
  pki: PkiFiles
  url: string
  signal: AbortSignal
}): Promise<void> {
  const ca = await readFile(pki.authorities.server.certFile, 'utf8')
  await probeHttp({ url, tls: { ca }, signal })
}

const wildcards = ['0.0.0.0', '::']

/** The address at which the daemon and the components on this machine find the API server. */
export function apiserverUrl({
  bindAddress,
  httpsListenPort,
}: Pick<Config, 'bindAddress' | 'httpsListenPort'>): string {
  const host = wildcards.includes(bindAddress) ? '127.0.0.1' : bindAddress
  return `https://${isIPv6(host) ? `[${host}]` : host}:${httpsListenPort}`
}
