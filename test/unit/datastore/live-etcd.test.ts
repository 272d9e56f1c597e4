import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Dump } from '../../../src/datastore/log/dump.ts'
import { Loader } from '../../../src/datastore/log/load.ts'
import { LiveEtcd } from '../../../src/datastore/transfer/live-etcd.ts'
import { temporaryDirectory } from './support.ts'

/** What answers as etcd's JSON gateway does; it ends with the test. */
async function gateway(listener: RequestListener): Promise<LiveEtcd> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const etcd = new LiveEtcd({ endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` })
  onTestFinished(() => {
    etcd[Symbol.dispose]()
    server.close()
    server.closeAllConnections()
  })
  return etcd
}

const message = (blob: Buffer): string => `${JSON.stringify({ result: { blob: blob.toString('base64') } })}\n`

describe('a snapshot', () => {
  const path = () => join(temporaryDirectory(), 'snapshot')

  test('is put together of its messages, wherever they are cut', async () => {
    const blobs = [1, 2, 3].map((byte) => Buffer.alloc(40_000, byte))
    const sent = Buffer.from(blobs.map(message).join(''))
    const etcd = await gateway((asked, answer) => {
      expect(asked.url).toBe('/v3/maintenance/snapshot')
      for (let at = 0; at < sent.length; at += 9_999) answer.write(sent.subarray(at, at + 9_999))
      answer.end()
    })
    const file = path()
    await etcd.saveSnapshot(file)
    expect(readFileSync(file).equals(Buffer.concat(blobs))).toBe(true)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    // Nothing that is there is replaced.
    await expect(etcd.saveSnapshot(file)).rejects.toThrow('EEXIST')
  })

  test.each<[string, RequestListener, RegExp | string]>([
    [
      'is refused',
      (_, answer) => answer.writeHead(403).end('{"message":"permission denied"}'),
      /^cannot speak with the etcd at http:\/\/127\.0\.0\.1:\d+: permission denied$/,
    ],
    ['is something else', (_, answer) => answer.writeHead(404).end('<html>'), 'it answers with status 404'],
    [
      'ends in an error',
      (_, answer) => answer.end(`${message(Buffer.alloc(10))}{"error":{"message":"it broke"}}\n`),
      'the snapshot ended in an error: it broke',
    ],
    [
      'is cut off',
      (_, answer) => void answer.write(message(Buffer.alloc(10)), () => answer.destroy()),
      /cannot POST .*\/v3\/maintenance\/snapshot/,
    ],
    [
      'has a message without end',
      (_, answer) => void answer.end('x'.repeat(5 << 20)),
      'a message of its snapshot is longer than 4194304 bytes',
    ],
  ])('that %s is an error', async (_, listener, reason) => {
    const etcd = await gateway(listener)
    await expect(etcd.saveSnapshot(path())).rejects.toThrow(reason)
  })
})

test('keys go there in transactions, with their leases', async () => {
  const file = { path: join(temporaryDirectory(), 'state.db') }
  const loader = new Loader(file)
  for (let revision = 2; revision <= 202; revision++) {
    const key = Buffer.from(`key-${revision === 202 ? 2 : revision}`)
    const isDelete = revision === 202
    loader.version({
      ...{ revision, sub: 0, key, lease: revision === 3 ? 7n : 0n },
      createRevision: isDelete ? 0 : revision,
      version: isDelete ? 0 : 1,
      value: Buffer.from(isDelete ? '' : `value ${revision}`),
    })
  }
  loader.lease({ id: 7n, ttlSeconds: 100 })
  loader.finish({ compactedRevision: -1 })
  const asked: { url: string; body: { success?: object[] } }[] = []
  const etcd = await gateway((request, answer) => {
    void text(request).then((body) => {
      asked.push({ url: request.url ?? '', body: JSON.parse(body) as { success?: object[] } })
      answer.end(request.url === '/v3/kv/range' ? '{"count":"3"}' : '{}')
    })
  })
  expect(await etcd.count()).toBe(3)
  using dump = new Dump(file)
  expect(await etcd.putAll(dump)).toEqual({ keys: 199, leases: 1 })
  expect(asked.map(({ url, body }) => [url, body.success?.length])).toEqual([
    ['/v3/kv/range', undefined],
    ['/v3/lease/grant', undefined],
    ['/v3/kv/txn', 128],
    ['/v3/kv/txn', 71],
  ])
  expect(asked[2]?.body.success?.[0]).toEqual({
    request_put: {
      key: Buffer.from('key-3').toString('base64'),
      value: Buffer.from('value 3').toString('base64'),
      lease: '7',
    },
  })
})

test('a file of its TLS that is missing is named', () => {
  expect(() => new LiveEtcd({ endpoint: 'https://127.0.0.1:1', caFile: '/nowhere' })).toThrow(
    'cannot read /nowhere',
  )
})

test('an etcd that is not there is named', async () => {
  using etcd = new LiveEtcd({ endpoint: 'http://127.0.0.1:1' })
  await expect(etcd.count()).rejects.toThrow(
    'cannot speak with the etcd at http://127.0.0.1:1: cannot POST http://127.0.0.1:1/v3/kv/range: connect ECONNREFUSED',
  )
})

test('a file of authorities that has none in it is refused: the system’s would be trusted', () => {
  const caFile = join(temporaryDirectory(), 'ca.crt')
  for (const content of ['', 'nonsense']) {
    writeFileSync(caFile, content)
    expect(() => new LiveEtcd({ endpoint: 'https://127.0.0.1:1', caFile })).toThrow(`cannot read ${caFile}`)
  }
})
