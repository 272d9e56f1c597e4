import { once } from 'node:events'
import { symlinkSync, unlinkSync } from 'node:fs'
import { request as fetchHttps } from 'node:https'
import { connect as connectSocket } from 'node:net'
import { join } from 'node:path'
import { type ConnectionOptions, connect } from 'node:tls'
import * as grpc from '@grpc/grpc-js'
import { expect, onTestFinished, test } from 'vitest'
import { type Logger, silentLogger } from '../../../src/base/logger.ts'
import type { DatastoreSettings } from '../../../src/datastore/datastore.ts'
import { randomBytes, randomNumbers } from '../../random.ts'
import { Crowd } from './crowd.ts'
import { fieldsOf, runDatastore, temporaryDirectory } from './support.ts'
import {
  type PemPair,
  type TestAuthority,
  replaceFile,
  testAuthority,
  tlsFilesIn,
} from './test-certificates.ts'

/** TLS: who is let in, and certificates that change while the datastore serves. */

/** What a client hears of it depends on how far it has come. */
const turnedAway = /certificate required|alert|closed|ECONNRESET|hang up/
const loopback = { host: '127.0.0.1', port: 0 }
const everywhere = { host: '0.0.0.0', port: 0 }
const memberList = '/etcdserverpb.Cluster/MemberList'

interface Served {
  readonly port: number
  readonly metricsUrl: string
  readonly files: ReturnType<typeof tlsFilesIn>
  readonly authority: TestAuthority
  readonly client: PemPair
  readonly warnings: { message: string }[]
}

async function serve(
  server: { names?: string[]; addresses?: string[] },
  settings: Partial<DatastoreSettings> & { listen?: { host: string; port: number } } = {},
): Promise<Served> {
  const directory = temporaryDirectory()
  const files = tlsFilesIn(directory)
  const authority = testAuthority()
  const { cert, key } = authority.issue({ usage: 'server', ...server })
  replaceFile(files.certFile, cert)
  replaceFile(files.keyFile, key)
  replaceFile(files.trustedCaFile, authority.cert)
  const warnings: { message: string }[] = []
  const log = Object.assign(Object.create(silentLogger) as Logger, {
    warn: (fields: object, message: string) => warnings.push({ ...fields, message }),
  })
  const { listening, metricsUrl = '' } = await runDatastore({
    path: join(directory, 'state.db'),
    log,
    ...settings,
    listen: { ...(settings.listen ?? loopback), tls: files },
    metricsListen: { ...loopback, tls: files },
  })
  expect(listening).toMatch(/^https:/)
  const client = authority.issue({ usage: 'client' })
  return { port: Number(new URL(listening).port), metricsUrl, files, authority, client, warnings }
}

function grpcClient(host: string, { cert, key }: PemPair, ca: string): grpc.Client {
  const pem = [ca, key, cert].map((text) => Buffer.from(text)) as [Buffer, Buffer, Buffer]
  const credentials = grpc.credentials.createSsl(...pem, { checkServerIdentity: () => undefined })
  // Node refuses to name an address in a handshake.
  const client = new grpc.Client(host, credentials, { 'grpc.ssl_target_name_override': 'localhost' })
  onTestFinished(() => client.close())
  return client
}

/** Where the datastore says that clients go. */
function memberUrls(client: grpc.Client): Promise<string[]> {
  const same = (bytes: Buffer): Buffer => bytes
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(memberList, same, same, Buffer.alloc(0), (error, reply) => {
      if (error !== null || reply === undefined) return reject(error ?? new Error('no reply'))
      const [member] = fieldsOf(reply).get(2) ?? []
      resolve((fieldsOf(member as Buffer).get(4) ?? []).map(String))
    })
  })
}

/** The serial number that a new connection is shown; rejects when it is turned away. */
async function serialShown(port: number, options: ConnectionOptions): Promise<string> {
  const socket = connect({
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ALPNProtocols: ['h2'],
    ...options,
  })
  onTestFinished(() => void socket.destroy())
  // With TLS 1.3 a client hears only then that its certificate is refused, by the end if at all.
  await new Promise((resolve, reject) => {
    socket.on('data', resolve)
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('closed')))
  })
  const { serialNumber } = socket.getPeerCertificate()
  socket.destroy()
  return serialNumber
}

test('clients need a certificate of an authority that is trusted, for metrics, too', async () => {
  const { port, metricsUrl, authority, client } = await serve({
    names: ['localhost'],
    addresses: ['127.0.0.1'],
  })
  const stranger = testAuthority('other').issue({ usage: 'client' })
  const ca = authority.cert
  expect(await serialShown(port, { ca, ...client })).not.toBe('')
  await expect(serialShown(port, { ca })).rejects.toThrow(turnedAway)
  await expect(serialShown(port, { ca, ...stranger })).rejects.toThrow(turnedAway)
  const statusFor = (options: object): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      const asked = fetchHttps(`${metricsUrl}/health`, { ca, agent: false, ...options }, (response) => {
        response.resume()
        resolve(response.statusCode)
      })
      asked.on('error', reject)
      asked.end()
    })
  expect(await statusFor(client)).toBe(200)
  await expect(statusFor({})).rejects.toThrow(turnedAway)
  await expect(statusFor(stranger)).rejects.toThrow(turnedAway)
  expect(await statusFor(client)).toBe(200)
})

test('certificates that change are taken up, broken ones are not, and connections go on', async () => {
  const { port, files, authority, client, warnings } = await serve({ addresses: ['127.0.0.1'] })
  const shown = (ca = authority.cert, pair = client): Promise<string> =>
    serialShown(port, { ca, ...pair, checkServerIdentity: () => undefined })
  const before = grpcClient(`127.0.0.1:${port}`, client, authority.cert)
  await memberUrls(before)
  const first = await shown()

  const next = authority.issue({ usage: 'server', addresses: ['127.0.0.1'] })
  replaceFile(files.certFile, next.cert)
  // The key is not that of the new certificate yet.
  expect(await shown()).toBe(first)
  expect(warnings).toMatchObject([
    { message: 'cannot take up new certificates: the former ones stay in use', certFile: files.certFile },
  ])
  replaceFile(files.keyFile, next.key)
  const second = await shown()
  expect(second).not.toBe(first)

  for (const broken of ['', 'nonsense', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n']) {
    replaceFile(files.trustedCaFile, broken)
    expect(await shown()).toBe(second)
    replaceFile(files.certFile, broken)
    expect(await shown()).toBe(second)
  }
  unlinkSync(files.keyFile)
  expect(await shown()).toBe(second)
  for (const target of [files.keyFile, '/', join(files.certFile, 'within'), `/${'x'.repeat(300)}`]) {
    symlinkSync(target, files.keyFile)
    expect(await shown()).toBe(second)
    unlinkSync(files.keyFile)
  }

  const other = testAuthority('other')
  const last = other.issue({ usage: 'server', addresses: ['127.0.0.1'] })
  replaceFile(files.certFile, last.cert)
  replaceFile(files.keyFile, last.key)
  replaceFile(files.trustedCaFile, other.cert)
  expect(await shown(other.cert, other.issue({ usage: 'client' }))).not.toBe(second)
  await expect(shown(other.cert, client)).rejects.toThrow(turnedAway)
  // Who is connected stays so.
  expect(await memberUrls(before)).toEqual([`https://127.0.0.1:${port}`])
})

test.each([
  ['an empty file of authorities', 'trustedCaFile', ''],
  ['a key of another certificate', 'keyFile', testAuthority().issue({ usage: 'server' }).key],
  ['no certificate', 'certFile', 'nonsense'],
] as const)('%s is refused at the start', async (_, name, text) => {
  const directory = temporaryDirectory()
  const files = tlsFilesIn(directory)
  const authority = testAuthority()
  const { cert, key } = authority.issue({ usage: 'server' })
  replaceFile(files.certFile, cert)
  replaceFile(files.keyFile, key)
  replaceFile(files.trustedCaFile, authority.cert)
  replaceFile(files[name], text)
  await expect(
    runDatastore({ path: join(directory, 'state.db'), listen: { ...loopback, tls: files } }),
  ).rejects.toMatchObject({ code: 'DATASTORE_TLS' })
})

test('a link of the files that leads in a circle is named at the start', async () => {
  const directory = temporaryDirectory()
  const files = tlsFilesIn(directory)
  symlinkSync(files.certFile, files.certFile)
  await expect(
    runDatastore({ path: join(directory, 'state.db'), listen: { ...loopback, tls: files } }),
  ).rejects.toMatchObject({ code: 'DATASTORE_TLS' })
})

test('a client that does not shake hands holds nobody up, and no stop', async () => {
  const { port, metricsUrl, authority, client } = await serve({ addresses: ['127.0.0.1'] })
  const beginnings = ['', '\x16\x03\x01', 'GET / HTTP/1.1\r\n\r\n', '\x16\x03\x01\x00\x05hello']
  const random = randomNumbers(1)
  for (let count = 0; count < 50; count++)
    beginnings.push(`\x16\x03\x01${randomBytes(random, 300).toString('latin1')}`)
  for (const to of [port, Number(new URL(metricsUrl).port)]) {
    for (const bytes of beginnings.slice(0, to === port ? 54 : 30)) {
      const socket = connectSocket(to, '127.0.0.1')
      socket.on('error', () => undefined)
      onTestFinished(() => void socket.destroy())
      await once(socket, 'connect')
      socket.write(bytes, 'latin1')
    }
  }
  expect(await memberUrls(grpcClient(`127.0.0.1:${port}`, client, authority.cert))).toEqual([
    `https://127.0.0.1:${port}`,
  ])
})

test('clients are told to go where the certificate has a name for', async () => {
  const { port, authority, client } = await serve(
    { names: ['datastore.example'], addresses: ['127.0.0.1'] },
    { listen: everywhere },
  )
  expect(await memberUrls(grpcClient(`127.0.0.1:${port}`, client, authority.cert))).toEqual([
    `https://datastore.example:${port}`,
  ])
})

test('clients of this machine alone are told to go to loopback', async () => {
  const { port, authority, client } = await serve(
    { names: ['localhost'], addresses: ['127.0.0.1'] },
    { listen: everywhere },
  )
  const urls = await memberUrls(grpcClient(`localhost:${port}`, client, authority.cert))
  expect(urls).toEqual([`https://localhost:${port}`, `https://127.0.0.1:${port}`])
  // A local client gets there.
  const [url = ''] = urls
  expect(await memberUrls(grpcClient(new URL(url).host, client, authority.cert))).toEqual(urls)
})

test('a certificate without any name that fits is refused', async () => {
  await expect(serve({ addresses: ['192.0.2.1'] }, { listen: everywhere })).rejects.toMatchObject({
    code: 'DATASTORE_ADVERTISE',
    remedy: expect.stringContaining('--advertise-client-urls') as string,
  })
})

test('what is to be advertised is', async () => {
  const advertiseClientUrls = ['https://one.example:1', 'https://two.example:2']
  const { port, authority, client } = await serve(
    { addresses: ['127.0.0.1'] },
    { listen: everywhere, advertiseClientUrls },
  )
  expect(await memberUrls(grpcClient(`127.0.0.1:${port}`, client, authority.cert))).toEqual(
    advertiseClientUrls,
  )
})

test('connections that never shake hands keep no client out, of the metrics neither', async () => {
  const { port, metricsUrl, authority, client } = await serve({ addresses: ['127.0.0.1'] })
  const ca = authority.cert
  const before = grpcClient(`127.0.0.1:${port}`, client, ca)
  await memberUrls(before)
  const crowd = new Crowd()
  await crowd.connect(`https://127.0.0.1:${port}`, 1100)
  await expect.poll(() => crowd.closed).toBeGreaterThan(100)
  expect(await serialShown(port, { ca, ...client, checkServerIdentity: () => undefined })).not.toBe('')
  expect(await memberUrls(before)).not.toEqual([])

  const others = new Crowd()
  await others.connect(metricsUrl, 70)
  await expect.poll(() => others.closed).toBeGreaterThan(5)
  const status = await new Promise((resolve, reject) => {
    const asked = fetchHttps(`${metricsUrl}/health`, { ca, ...client, agent: false }, ({ statusCode }) =>
      resolve(statusCode),
    )
    asked.on('error', reject)
    asked.end()
  })
  expect(status).toBe(200)
})
