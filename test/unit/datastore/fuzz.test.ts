import { join } from 'node:path'
import * as grpc from '@grpc/grpc-js'
import { expect, onTestFinished, test } from 'vitest'
import { type Logger, silentLogger } from '../../../src/base/logger.ts'
import { startDatastore } from '../../../src/datastore/datastore.ts'
import { type Random, randomBytes, randomNumbers } from '../../random.ts'
import { RawClient, message, temporaryDirectory, workerUrl } from './support.ts'

/** Requests of random bytes, and of random fields: each is answered, and the server goes on. */

const methods = [
  ...['Range', 'RangeStream', 'Put', 'DeleteRange', 'Txn', 'Compact'].map((name) => `KV/${name}`),
  'Watch/Watch',
  ...['Grant', 'Revoke', 'KeepAlive', 'TimeToLive', 'Leases'].map((name) => `Lease/Lease${name}`),
  ...['Alarm', 'Status', 'Defragment', 'Hash', 'HashKV', 'MoveLeader', 'Downgrade'].map(
    (name) => `Maintenance/${name}`,
  ),
  ...['Add', 'Remove', 'Update', 'List', 'Promote'].map((name) => `Cluster/Member${name}`),
  ...['AuthStatus', 'AuthEnable', 'AuthDisable', 'Authenticate', 'UserAdd', 'RoleGet'].map(
    (name) => `Auth/${name}`,
  ),
].map((name) => `/etcdserverpb.${name}`)
const concurrency = [
  ...['Lock/Lock', 'Lock/Unlock'].map((name) => `/v3lockpb.${name}`),
  ...['Campaign', 'Proclaim', 'Leader', 'Observe', 'Resign'].map((name) => `/v3electionpb.Election/${name}`),
]
const requestsEach = 120
const inFlight = 40
/** Some calls wait for what never comes. */
const callLimitMs = 300

const integers = [0n, 1n, 2n, 3n, 7n, 128n, 2n ** 31n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 64n - 1n, 2n ** 63n]
const texts = ['', '\0', 'a', 'b', 'a/', 'a0', '\u00ff', 'é'.repeat(50), 'x'.repeat(5000)]

/** Fields that etcd's requests have, with values that matter, in any combination. */
function randomFields(random: Random, depth = 0): Buffer {
  const parts: Buffer[] = []
  for (let count = random(6); count > 0; count--) {
    const field = random(20) === 0 ? 64 : 1 + random(14)
    const choice = random(depth < 5 ? 3 : 2)
    if (choice === 0) parts.push(message({ [field]: integers[random(integers.length)] as bigint }))
    else if (choice === 1) parts.push(message({ [field]: texts[random(texts.length)] as string }))
    else parts.push(message({ [field]: randomFields(random, depth + 1) }))
  }
  return Buffer.concat(parts)
}

/** A message in which some bytes are other ones, or at whose end some are missing. */
function damaged(bytes: Buffer, random: Random): Buffer {
  const copy = Buffer.from(bytes)
  for (let count = random(4); count > 0 && copy.length > 0; count--) copy[random(copy.length)] = random(256)
  return copy.subarray(0, copy.length - random(Math.min(8, copy.length + 1)))
}

function randomRequest(random: Random): Buffer {
  const choice = random(10)
  if (choice < 2) return randomBytes(random, 80)
  return choice < 6 ? randomFields(random) : damaged(randomFields(random), random)
}

/** Sends one request on a call of its own; settles with the code that it ended with. */
function ask(client: grpc.Client, path: string, request: Buffer): Promise<number> {
  const same = (bytes: Buffer): Buffer => bytes
  const call = client.makeBidiStreamRequest(path, same, same, { deadline: Date.now() + callLimitMs })
  call.on('data', () => undefined)
  call.on('error', () => undefined)
  call.end(request)
  return new Promise((resolve) => call.on('status', ({ code }) => resolve(code)))
}

test('whatever a request contains, it is answered', async () => {
  const errors: object[] = []
  const log: Logger = Object.assign(Object.create(silentLogger) as Logger, {
    error: (fields: object) => errors.push(fields),
  })
  const datastore = await startDatastore({
    path: join(temporaryDirectory(), 'state.db'),
    listen: { host: '127.0.0.1', port: 0 },
    workerUrl,
    log,
  })
  onTestFinished(() => datastore.stop())
  const client = new grpc.Client(new URL(datastore.listening).host, grpc.credentials.createInsecure())
  onTestFinished(() => client.close())

  const random = randomNumbers(2026)
  const waiting = [...methods, ...concurrency].flatMap((path) =>
    Array.from({ length: concurrency.includes(path) ? 20 : requestsEach }, () => ({
      path,
      request: randomRequest(random),
    })),
  )
  const codes = new Map<number, number>()
  const worker = async (): Promise<void> => {
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const code = await ask(client, next.path, next.request)
      codes.set(code, (codes.get(code) ?? 0) + 1)
      if (code === grpc.status.UNAVAILABLE) expect.fail(`${next.path} ${next.request.toString('hex')}`)
    }
  }
  await Promise.all(Array.from({ length: inFlight }, worker))

  // A method that throws what it does not mean to is logged.
  expect(errors).toEqual([])
  for (const code of [grpc.status.OK, grpc.status.INTERNAL, grpc.status.INVALID_ARGUMENT]) {
    expect(codes.get(code)).toBeGreaterThan(100)
  }
  const after = new RawClient(datastore.listening)
  await after.unary('/etcdserverpb.Maintenance/Alarm', message({ 1: 2, 3: 1 }))
  expect((await after.unary('/etcdserverpb.KV/Put', message({ 1: 'a', 2: 'b' }))).length).toBeGreaterThan(0)
})
