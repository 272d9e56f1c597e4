/**
 * The datastore's own HTTP/2 beside @grpc/grpc-js and node:http2, interleaved: gets of 1.5 kB that cost the server nothing
 * else, 64 in flight over 8 connections.   node bench/datastore/transports.ts [--runs=5] [--profile=DIRECTORY]
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { median, positive } from '../figures.ts'
import { buildClient, cpuSeconds } from './servers.ts'

const transports = ['grpc-js', 'node-http2', 'own']
const requests = 100_000

const { values } = parseArgs({
  options: { runs: { type: 'string', default: '5' }, profile: { type: 'string' } },
})
const runs = positive('runs', values.runs)
const client = buildClient()

const figures = new Map(
  transports.map((name) => [name, { perSecond: [] as number[], cpuMicros: [] as number[] }]),
)
for (let run = 0; run < runs; run++) for (const name of transports) await measure(name)
console.log('transport      requests/s   CPU of the server, us a request')
for (const [name, { perSecond, cpuMicros }] of figures) {
  console.log(
    `${name.padEnd(12)} ${median(perSecond).toFixed(0).padStart(12)} ${median(cpuMicros).toFixed(1).padStart(33)}`,
  )
}

async function measure(name: string): Promise<void> {
  const profile =
    values.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${values.profile}/${name}`]
  const server = spawn(process.execPath, [...profile, `${import.meta.dirname}/transport-server.ts`, name], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const [port] = (await once(server.stdout, 'data')) as [Buffer]
    const before = cpuSeconds(server.pid)
    const output = execFileSync(
      client,
      [`-endpoint=http://127.0.0.1:${String(port).trim()}`, '-mode=gets', `-keys=${requests}`],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    )
    const [row] = JSON.parse(String(output)) as { perSecond: number }[]
    figures.get(name)?.perSecond.push(row?.perSecond ?? Number.NaN)
    figures.get(name)?.cpuMicros.push(((cpuSeconds(server.pid) - before) / requests) * 1e6)
  } finally {
    const ended = once(server, 'exit')
    server.kill('SIGINT')
    await ended
  }
}
