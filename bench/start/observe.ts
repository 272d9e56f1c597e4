/**
 * Asks a starting cluster, every few milliseconds over one connection, whether it is ready. Runs inside
 * the machine: node observe.ts KUBECONFIG READY_FILE
 *
 * Prints "observing" when it has begun, then "apiserver NS" and "node NS": nanoseconds of the monotonic
 * clock, which is the same for the whole host. READY_FILE is made when /readyz has answered.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import { readKubeconfig } from '../../test/integration/harness/kubeconfig.ts'

const pollIntervalMs = 20

const [kubeconfig = '', readyFile = ''] = process.argv.slice(2)
console.log('observing')
while (!existsSync(kubeconfig)) await sleep(pollIntervalMs)
const { server, identity } = readKubeconfig(readFileSync(kubeconfig, 'utf8'))
const agent = new https.Agent({ ...identity, keepAlive: true, maxSockets: 1 })

while ((await get('/readyz')) === undefined) await sleep(pollIntervalMs)
console.log(`apiserver ${process.hrtime.bigint()}`)
writeFileSync(readyFile, '')
while (!isReady(await get('/api/v1/nodes'))) await sleep(pollIntervalMs)
console.log(`node ${process.hrtime.bigint()}`)
agent.destroy()

/** The body of a 200; undefined for every other end. */
function get(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const request = https.get(`${server}${path}`, { agent }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk))
      response.on('end', () => resolve(response.statusCode === 200 ? body : undefined))
    })
    request.on('error', () => resolve(undefined))
  })
}

function isReady(body: string | undefined): boolean {
  if (body === undefined) return false
  const { items } = JSON.parse(body) as {
    items: { status: { conditions?: { type: string; status: string }[] } }[]
  }
  return items.some(({ status }) =>
    status.conditions?.some(({ type, status: value }) => type === 'Ready' && value === 'True'),
  )
}
