import { readFile } from 'node:fs/promises'
import { connect, isIPv6 } from 'node:net'
import { request, type TlsIdentity } from '../base/http.ts'
import type { Config } from '../config/config.ts'
import type { PkiFiles } from '../pki/pki.ts'

/** Resolves when `url` answers with a 2xx. The signal is its limit. */
export async function probeHttp({
  url,
  tls,
  signal,
}: {
  url: string
  tls?: TlsIdentity
  signal: AbortSignal
}): Promise<string> {
  const { status, body } = await request({ url, ...(tls && { tls }), signal })
  if (status < 200 || status > 299) throw new Error(`${url} answers ${status}: ${body.slice(0, 300)}`)
  return body
}

/** What an HTTP/2 client says first, and its settings, of which it has none (RFC 9113, 3.4 and 6.5). */
const clientPreface = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
])
const frameHeaderBytes = 9
const settingsType = 4

/**
 * Resolves when a gRPC server at the Unix socket answers with its settings. That somebody accepts the connection
 * would say nothing: the kernel does so for a process that hangs.
 */
export async function probeGrpcSocket({
  path,
  signal,
}: {
  path: string
  signal: AbortSignal
}): Promise<void> {
  const socket = connect(path)
  const giveUp = () => void socket.destroy(new Error(`${path} does not answer`))
  signal.addEventListener('abort', giveUp)
  try {
    socket.write(clientPreface)
    let answer = Buffer.alloc(0)
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      answer = Buffer.concat([answer, chunk])
      if (answer.length < frameHeaderBytes) continue
      if (answer[3] !== settingsType) throw new Error(`${path} does not speak gRPC`)
      return
    }
    throw new Error(`${path} closes the connection`)
  } finally {
    signal.removeEventListener('abort', giveUp)
    socket.destroy()
  }
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
