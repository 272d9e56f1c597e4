/**
 * Speaks to the API server from inside the machine, whose network nobody outside reaches: node inside.ts KUBECONFIG
 *
 * Each line of stdin is a request {id, method, path, accept, body} as JSON, each line of stdout its answer {id, status, body}. The
 * line "load" begins what users do: five times a second a ConfigMap is made, read, changed and removed, and every
 * ten seconds somebody lists all pods, and all nodes.
 */
import { readFileSync } from 'node:fs'
import https from 'node:https'
import { createInterface } from 'node:readline'
import { readKubeconfig } from '../../test/integration/harness/kubeconfig.ts'

export interface Asked {
  readonly id?: number
  readonly method?: string
  readonly path: string
  readonly accept?: string
  readonly body?: object
}

export interface Answer {
  readonly id?: number | undefined
  /** 0: there was none, and the body says why. */
  readonly status: number
  readonly body: string
}

const timeoutMs = 120_000
const writesIntervalMs = 200
const listsIntervalMs = 10_000
/** Of rounds that have not ended: who gets no answers does not ask without end. */
const openRounds = 50

const [kubeconfig = ''] = process.argv.slice(2)
const { server, identity } = readKubeconfig(readFileSync(kubeconfig, 'utf8'))
const agent = new https.Agent({ ...identity, keepAlive: true })

for await (const line of createInterface(process.stdin)) {
  if (line === 'load') begin()
  else {
    const asked = JSON.parse(line) as Asked
    void send(asked).then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`))
  }
}
process.exit(0)

function begin(): void {
  let [number, open] = [0, 0]
  setInterval(() => {
    if (open >= openRounds) return
    open++
    void write(`load-${number++}`).finally(() => open--)
  }, writesIntervalMs)
  let isListing = false
  setInterval(() => {
    if (isListing) return
    isListing = true
    const lists = ['/api/v1/pods', '/api/v1/nodes'].map((path) => send({ path }, { keep: false }))
    void Promise.all(lists).finally(() => (isListing = false))
  }, listsIntervalMs)
}

async function write(name: string): Promise<void> {
  const all = '/api/v1/namespaces/default/configmaps'
  const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { text: 'x'.repeat(500) } }
  await send({ method: 'POST', path: all, body: object })
  await send({ path: `${all}/${name}` })
  await send({ method: 'PUT', path: `${all}/${name}`, body: { ...object, data: { text: 'y'.repeat(500) } } })
  await send({ method: 'DELETE', path: `${all}/${name}` })
}

function send(
  { id, method = 'GET', path, accept = 'application/json', body }: Asked,
  { keep = true }: { keep?: boolean } = {},
): Promise<Answer> {
  return new Promise((resolve) => {
    const headers = { accept, ...(body && { 'content-type': 'application/json' }) }
    const request = https.request(
      server + path,
      { method, headers, agent, timeout: timeoutMs },
      (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => keep && parts.push(part))
        response.on('end', () =>
          resolve({ id, status: response.statusCode ?? 0, body: Buffer.concat(parts).toString() }),
        )
        response.on('error', (error) => resolve({ id, status: 0, body: error.message }))
      },
    )
    request.on('timeout', () => request.destroy(new Error(`no answer within ${timeoutMs} ms`)))
    request.on('error', (error) => resolve({ id, status: 0, body: error.message }))
    request.end(body && JSON.stringify(body))
  })
}
