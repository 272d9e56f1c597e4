import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Logger, silentLogger } from '../../../src/base/logger.ts'
import { HpackDecoder } from '../../../src/datastore/grpc/http2/hpack-decoder.ts'
import { frameTypes } from '../../../src/datastore/grpc/http2/protocol.ts'
import { type Random, fuzz, fuzzCases } from '../../random.ts'
import { randomSession } from './fuzz-session.ts'
import { framesOf, largestFrameBytes } from './raw-http2.ts'
import { RawClient, message, runDatastore, temporaryDirectory } from './support.ts'

/** Sends a session, in one piece or several, and nothing after it; returns what came back until the end. */
function converse(port: number, session: Buffer, random: Random): Promise<Buffer> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  // Who is cut off may hear of it in the middle of a write.
  socket.on('error', () => undefined)
  const cuts = Array.from({ length: random(4) }, () => random(session.length)).sort((one, two) => one - two)
  let start = 0
  for (const end of [...cuts, session.length]) {
    socket.write(session.subarray(start, end))
    start = end
  }
  socket.end()
  return new Promise((resolve) => socket.on('close', () => resolve(Buffer.concat(chunks))))
}

/** What every answer is like, whatever was asked; counts what was in it. */
function checkAnswer(received: Buffer, seen: Map<string, number>): void {
  const decoder = new HpackDecoder()
  const count = (what: string): void => void seen.set(what, (seen.get(what) ?? 0) + 1)
  for (const { type, payload } of framesOf(received)) {
    expect(payload.length).toBeLessThanOrEqual(largestFrameBytes)
    expect(Object.values(frameTypes)).toContain(type)
    if (type === frameTypes.goAway) count(`GOAWAY ${payload.readUInt32BE(4)}`)
    if (type !== frameTypes.headers) continue
    decoder.decode(payload, 0, payload.length, (name, value) => {
      if (name === 'grpc-status' || name === ':status') count(`${name} ${value}`)
    })
  }
}

const plan = fuzzCases(400)

test(
  'whatever a client sends on its connection, the datastore serves the others',
  async () => {
    const errors: object[] = []
    const log: Logger = Object.assign(Object.create(silentLogger) as Logger, {
      error: (fields: object, text: string) => errors.push({ ...fields, text }),
    })
    const datastore = await runDatastore({ path: join(temporaryDirectory(), 'state.db'), log })
    let failure: Error | undefined
    void datastore.failed.then((error) => (failure = error))
    const port = Number(new URL(datastore.listening).port)

    const seen = new Map<string, number>()
    await fuzz(plan, async (random) => {
      checkAnswer(await converse(port, randomSession(random), random), seen)
      expect(failure).toBeUndefined()
    })

    // What is thrown and was not meant to be is told.
    expect(errors).toEqual([])
    // Sessions get as far as the services, and as far as each kind of refusal.
    if (process.env['FUZZ_CASES'] === undefined) {
      const usual = ['grpc-status 0', 'grpc-status 3', 'grpc-status 12', 'grpc-status 13', ':status 431']
      expect([...seen.keys()]).toEqual(expect.arrayContaining([...usual, 'GOAWAY 1', 'GOAWAY 6', 'GOAWAY 9']))
    }
    const client = new RawClient(datastore.listening)
    await client.unary('/etcdserverpb.Maintenance/Alarm', message({ 1: 2, 3: 1 }))
    expect((await client.unary('/etcdserverpb.KV/Put', message({ 1: 'a', 2: 'b' }))).length).toBeGreaterThan(
      0,
    )
  },
  plan.timeoutMs,
)
