import { once } from 'node:events'
import { mkdtempDisposableSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

export interface Answer {
  readonly status?: number
  readonly body: unknown
}

/** A kubeconfig for an API server that gives these answers, by method and path, one after the other. */
export async function serve(answers: Readonly<Record<string, readonly Answer[]>>) {
  const directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-client-'))
  const asked: string[] = []
  const server = createServer((request: IncomingMessage, response) => {
    const name = `${request.method} ${request.url}`
    const found = answers[name] ?? []
    const answer = found[Math.min(asked.filter((one) => one === name).length, found.length - 1)]
    asked.push(name)
    request.resume()
    const { status = 200, body } = answer ?? { status: 404, body: { message: 'there is none' } }
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
    directory.remove()
  })
  const { port } = server.address() as AddressInfo
  const kubeconfig = join(directory.path, 'kubeconfig')
  const entry = {
    cluster: { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true },
    user: {},
    context: { cluster: 'a', user: 'a' },
  }
  const list = (kind: 'cluster' | 'user' | 'context') => [{ name: 'a', [kind]: entry[kind] }]
  const config = {
    clusters: list('cluster'),
    users: list('user'),
    contexts: list('context'),
    'current-context': 'a',
  }
  writeFileSync(kubeconfig, JSON.stringify({ apiVersion: 'v1', kind: 'Config', ...config }))
  return { kubeconfig, asked }
}
