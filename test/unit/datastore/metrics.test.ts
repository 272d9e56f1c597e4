import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Histogram } from '../../../src/base/histogram.ts'
import { Exposition } from '../../../src/base/exposition.ts'
import { EtcdClient } from './etcd-client.ts'
import { message, runDatastore, temporaryDirectory } from './support.ts'

async function serve() {
  const datastore = await runDatastore({
    path: join(temporaryDirectory(), 'state.db'),
    metricsListen: { host: '127.0.0.1', port: 0 },
  })
  const client = new EtcdClient(datastore.listening)
  onTestFinished(() => client.close())
  const url = datastore.metricsUrl ?? ''
  const get = async (path: string) => {
    const response = await fetch(`${url}${path}`)
    return { status: response.status, text: await response.text() }
  }
  return { client, url, get }
}

test('metrics tell of the store and of its calls', async () => {
  const { client, get } = await serve()
  for (let count = 0; count < 3; count++) await client.put('a', Buffer.from('x'))
  await expect(client.call('KV/Put', message({}))).rejects.toThrow('key is not provided')
  const events = await client.watch('a')
  const { status, text } = await get('/metrics')
  expect(status).toBe(200)
  expect(events).toEqual([])
  for (const line of [
    'etcd_server_has_leader 1',
    'etcd_debugging_mvcc_current_revision 4',
    'etcd_debugging_mvcc_compact_revision -1',
    'etcd_debugging_mvcc_keys_total 1',
    'etcd_debugging_mvcc_watcher_total 1',
    'etcd_server_quota_backend_bytes 8589934592',
    'grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV"} 3',
    'grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Put",grpc_service="etcdserverpb.KV"} 1',
    'grpc_server_handled_total{grpc_code="OK",grpc_method="Range",grpc_service="etcdserverpb.KV"} 0',
  ]) {
    expect(text.split('\n')).toContain(line)
  }
  expect(text).toMatch(/^etcd_mvcc_db_total_size_in_bytes [1-9]\d+$/m)
  expect(text).toMatch(/^etcd_disk_backend_commit_duration_seconds_count [1-9]\d*$/m)
  // Each line is a comment or a sample, and each metric is announced once.
  expect(text.match(/^(?!# (HELP|TYPE) |[a-z_0-9]+(\{.*\})? -?[0-9.e+-]+$).+$/gm)).toBeNull()
  const types = [...text.matchAll(/^# TYPE (\S+)/gm)].map((match) => match[1])
  expect(new Set(types).size).toBe(types.length)
})

test('health is etcd’s: an alarm is told, unless it is excluded', async () => {
  const { client, get, url } = await serve()
  expect(await get('/health')).toEqual({ status: 200, text: '{"health":"true","reason":""}' })
  await client.call('Maintenance/Alarm', message({ 1: 1, 3: 1 }))
  expect(await get('/health')).toEqual({
    status: 503,
    text: '{"health":"false","reason":"ALARM NOSPACE"}\n',
  })
  expect(await get('/health?exclude=NOSPACE')).toMatchObject({ status: 200 })
  expect(await get('/livez')).toEqual({ status: 200, text: 'ok\n' })
  expect(await get('/other')).toMatchObject({ status: 404 })
  expect((await fetch(`${url}/metrics`, { method: 'POST' })).status).toBe(405)
})

test('a histogram is told cumulatively', () => {
  const histogram = new Histogram([0.1, 1])
  for (const value of [0.05, 0.1, 0.5, 2]) histogram.observe(value)
  const metrics = new Exposition()
  metrics.histogram('h', 'Help.', histogram)
  expect(metrics.text).toBe(`# HELP h Help.
# TYPE h histogram
h_bucket{le="0.1"} 2
h_bucket{le="1"} 3
h_bucket{le="+Inf"} 4
h_sum 2.65
h_count 4
`)
})
