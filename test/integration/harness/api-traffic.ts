/**
 * A client that writes, watches and reads all the time. Runs inside the machine: node api-traffic.ts KUBECONFIG
 *
 * Prints "writing" when it has begun. At the end of its input it stops and prints what it has seen: Traffic, as JSON.
 */
import { readFileSync } from 'node:fs'
import https from 'node:https'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { readKubeconfig } from './kubeconfig.ts'

export interface Traffic {
  /** Names whose write was acknowledged. */
  readonly acknowledged: readonly string[]
  readonly failedWrites: number
  /** Between two acknowledged writes. */
  readonly longestPauseMs: number
  /** Names, in the order in which the watch told of them. */
  readonly watched: readonly string[]
  /** How often the watch was told to list again: something may have passed it. */
  readonly relists: number
  /** What is there at the end. */
  readonly listed: readonly string[]
}

const writeIntervalMs = 50
const answerLimitMs = 10_000
/** Each run has objects of its own. */
const traffic = String(process.pid)
const path = '/api/v1/namespaces/default/configmaps'

const [kubeconfig = ''] = process.argv.slice(2)
const { server, identity } = readKubeconfig(readFileSync(kubeconfig, 'utf8'))
const agent = new https.Agent({ ...identity, keepAlive: true })
const end = new AbortController()
createInterface(process.stdin).on('close', () => end.abort())

const acknowledged: string[] = []
const watched: string[] = []
let failedWrites = 0
let longestPauseMs = 0
let relists = 0

const first = await list()
console.log('writing')
const watching = watch(first.resourceVersion)
await write()
const { names: listed } = await untilAnswered(list)
// What was written last has to reach the watch, too.
for (let left = 200; left > 0 && listed.some((name) => !watched.includes(name)); left--) await sleep(50)
agent.destroy()
void watching
console.log(
  JSON.stringify({ acknowledged, failedWrites, longestPauseMs, watched, relists, listed } satisfies Traffic),
)
process.exit()

async function write(): Promise<void> {
  let lastMs = performance.now()
  for (let number = 0; !end.signal.aborted; number++) {
    const name = `traffic-${traffic}-${number}`
    const body = JSON.stringify({ metadata: { name, labels: { traffic } } })
    const status = await send('POST', path, body).then(
      (answer) => answer.status,
      () => 0,
    )
    if (status === 201) {
      acknowledged.push(name)
      longestPauseMs = Math.max(longestPauseMs, performance.now() - lastMs)
      lastMs = performance.now()
    } else failedWrites++
    await sleep(writeIntervalMs)
  }
}

/** Goes on from the last event when it is ended. */
async function watch(from: string): Promise<void> {
  let version = from
  for (;;) {
    const query = `?watch=1&labelSelector=traffic%3D${traffic}&resourceVersion=${version}&allowWatchBookmarks=true`
    await new Promise<void>((resolve) => {
      const request = https.get(`${server}${path}${query}`, { agent }, (response) => {
        if (response.statusCode === 410) relists++
        const lines = createInterface(response)
        lines.on('line', (line) => {
          const { type, object } = JSON.parse(line) as {
            type: string
            object: { code?: number; metadata: { name: string; resourceVersion: string } }
          }
          if (type === 'ERROR') {
            if (object.code === 410) relists++
            return
          }
          version = object.metadata.resourceVersion
          if (type === 'ADDED') watched.push(object.metadata.name)
        })
        lines.on('error', () => {})
        response.on('close', resolve)
      })
      request.on('error', () => resolve())
    })
    await sleep(writeIntervalMs)
  }
}

async function list(): Promise<{ names: string[]; resourceVersion: string }> {
  const { status, body } = await send('GET', `${path}?labelSelector=traffic%3D${traffic}`)
  if (status !== 200) throw new Error(`the list was answered with ${status}`)
  const { items, metadata } = JSON.parse(body) as {
    items: { metadata: { name: string } }[]
    metadata: { resourceVersion: string }
  }
  return { names: items.map((item) => item.metadata.name), resourceVersion: metadata.resourceVersion }
}

async function untilAnswered<Value>(ask: () => Promise<Value>): Promise<Value> {
  for (let left = 100; ; left--) {
    try {
      return await ask()
    } catch (error) {
      if (left === 0) throw error
      await sleep(500)
    }
  }
}

function send(method: string, url: string, body?: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = https.request(
      `${server}${url}`,
      { agent, method, timeout: answerLimitMs, headers: { 'content-type': 'application/json' } },
      (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }))
        response.on('error', reject)
      },
    )
    request.on('timeout', () => request.destroy(new Error('no answer')))
    request.on('error', reject)
    request.end(body)
  })
}
