import { connect } from 'node:net'
import { request, type TlsIdentity } from '../base/https.ts'

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
