/**
 * Creates pods on a cluster of one node, waits until all are Ready, and deletes them. Runs inside the machine:
 *
 *   node client.ts KUBECONFIG PODS IMAGE
 *
 * Prints "created MS", "ready MS" and "deleted MS" as soon as each is so, in milliseconds since the first request of the pods, or of
 * the deletion.
 */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import https from 'node:https'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { readKubeconfig } from '../../test/integration/harness/kubeconfig.ts'

const createsAtATime = 16
const pollIntervalMs = 50

interface Pod {
  readonly metadata: { readonly name: string; readonly resourceVersion: string }
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] }
}

const [kubeconfig = '', wanted = '', image = ''] = process.argv.slice(2)
const { server, identity } = readKubeconfig(readFileSync(kubeconfig, 'utf8'))
const agent = new https.Agent({ ...identity, keepAlive: true, maxSockets: createsAtATime })
const namespace = '/api/v1/namespaces/default'

// The controller manager makes it; until then no pod is admitted.
while ((await ask('GET', `${namespace}/serviceaccounts/default`)).statusCode !== 200)
  await sleep(pollIntervalMs)
const ready = new Set<string>()
const deleted = new Set<string>()
const allReady = Promise.withResolvers<void>()
const allDeleted = Promise.withResolvers<void>()
const count = Number(wanted)
await watch()

let begun = performance.now()
const names = Array.from({ length: count }, (_, place) => `pod-${place}`)
const waiting = [...names]
const create = async (): Promise<void> => {
  for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
    const { statusCode, body } = await ask('POST', `${namespace}/pods`, podOf(name))
    if (statusCode !== 201) throw new Error(`cannot create ${name}: ${body}`)
  }
}
await Promise.all(Array.from({ length: createsAtATime }, create))
tell('created')
await allReady.promise
tell('ready')

begun = performance.now()
const { statusCode, body } = await ask('DELETE', `${namespace}/pods`)
if (statusCode !== 200) throw new Error(`cannot delete the pods: ${body}`)
await allDeleted.promise
tell('deleted')
process.exit()

function tell(what: string): void {
  console.log(`${what} ${(performance.now() - begun).toFixed(0)}`)
}

function podOf(name: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: 'bench' } },
    spec: { containers: [{ name: 'pause', image, imagePullPolicy: 'IfNotPresent' }] },
  }
}

/** Follows the pods of the namespace, from now on. */
async function watch(): Promise<void> {
  const { body: list } = await ask('GET', `${namespace}/pods?limit=1`)
  await watchFrom((JSON.parse(list) as { metadata: { resourceVersion: string } }).metadata.resourceVersion)
}

/** The API server closes a watch whose client has got too far behind, which a full machine is enough for: it goes on from there. */
async function watchFrom(resourceVersion: string): Promise<void> {
  const request = https.get(`${server}${namespace}/pods?watch=1&resourceVersion=${resourceVersion}`, {
    ...identity,
    agent: false,
  })
  const [response] = (await once(request, 'response')) as [NodeJS.ReadableStream]
  const lines = createInterface({ input: response })
  let last = resourceVersion
  lines.on('close', () => watchFrom(last).catch(allReady.reject))
  lines.on('line', (line) => {
    const { type, object } = JSON.parse(line) as { type: string; object: Pod }
    if (type === 'ERROR') throw new Error(`cannot watch the pods: ${line}`)
    const { name } = object.metadata
    last = object.metadata.resourceVersion
    if (type === 'DELETED' && deleted.add(name).size === count) allDeleted.resolve()
    const isReady = object.status?.conditions?.some((one) => one.type === 'Ready' && one.status === 'True')
    if (type === 'MODIFIED' && isReady && ready.add(name).size === count) allReady.resolve()
  })
}

async function ask(
  method: string,
  path: string,
  given?: object,
): Promise<{ statusCode: number; body: string }> {
  const headers = { 'content-type': 'application/json' }
  const request = https.request(`${server}${path}`, { method, agent, headers })
  request.end(given && JSON.stringify(given))
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  return { statusCode: response.statusCode ?? 0, body: await text(response) }
}
