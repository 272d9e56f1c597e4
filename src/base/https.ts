import http from 'node:http'
import https from 'node:https'

/** The largest answer that is read; a Node object has some 10 kB, a table of them less than this. */
const maxResponseBytes = 4 << 20

/** What a client shows and trusts, PEM. */
export interface TlsIdentity {
  readonly ca: string
  readonly cert?: string
  readonly key?: string
}

export interface HttpRequest {
  readonly url: string
  readonly method?: 'GET' | 'PATCH' | 'PUT' | 'POST' | 'DELETE'
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  readonly tls?: TlsIdentity
  readonly signal: AbortSignal
}

export interface HttpResponse {
  readonly status: number
  readonly body: string
}

/**
 * One request over HTTP or, for an https URL, TLS. Rejects when there is no answer; every status is an
 * answer. The resident daemon uses this instead of @kubernetes/client-node, whose import costs
 * 0.3 s and 85 MB.
 */
export function request({
  url,
  method = 'GET',
  headers,
  body,
  tls,
  signal,
}: HttpRequest): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    const options = { method, signal, headers: { ...headers, connection: 'close' }, agent: false }
    const sent = url.startsWith('https:')
      ? https.request(url, { ...options, ...tls, minVersion: 'TLSv1.2' })
      : http.request(url, options)
    sent.on('error', reject)
    sent.on('response', (response) => {
      const chunks: Buffer[] = []
      let length = 0
      response.on('data', (chunk: Buffer) => {
        length += chunk.length
        if (length > maxResponseBytes)
          return void response.destroy(new Error(`cannot read ${url}: answer over ${maxResponseBytes} bytes`))
        chunks.push(chunk)
      })
      response.on('error', reject)
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }),
      )
    })
    sent.end(body)
  })
}
