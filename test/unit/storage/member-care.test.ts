import { join } from 'node:path'
import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { MemberCare } from '../../../src/storage/member-care.ts'
import { EtcdClient } from '../datastore/etcd-client.ts'
import { runDatastore, temporaryDirectory } from '../datastore/support.ts'

const quotaBytes = 4 * 1024 * 1024
const { signal } = new AbortController()

/** The embedded datastore stands in for a member: it answers all that is asked, but has no peers. */
async function member(peerUrl = '') {
  const datastore = await runDatastore({ path: join(temporaryDirectory(), 'state.db'), quotaBytes })
  const client = new EtcdClient(datastore.listening)
  const care = new MemberCare({
    server: () => ({ address: datastore.listening }),
    peerUrl: () => peerUrl,
    log: silentLogger,
  })
  const fill = async (key: (number: number) => string) => {
    const value = Buffer.alloc(100_000, 'x')
    for (let number = 0; ; number++) {
      const isRefused = await client.put(key(number), value).then(
        () => false,
        (error: unknown) => String(error).includes('database space exceeded'),
      )
      if (isRefused) return
    }
  }
  return { client, care, fill }
}

test('where history has used up the quota, it is removed, and the alarm is lowered', async () => {
  const { client, care, fill } = await member()
  await care.look(signal)
  await fill(() => 'same')
  expect(await client.alarms()).toEqual([1])
  await care.look(signal)
  expect(await client.alarms()).toEqual([])
  await client.put('other', Buffer.from('1'))
  client.close()
})

test('where all of it is in use, that is told until something is deleted', async () => {
  const { client, care, fill } = await member()
  await fill((number) => `key-${number}`)
  const refusal = /^cannot take writes: etcd has reached its quota, and \d MiB of 4 MiB are in use$/
  await expect(care.look(signal)).rejects.toThrow(refusal)
  await expect(care.look(signal)).rejects.toMatchObject({ code: 'ETCD_NO_SPACE' })
  for (let number = 0; number < 20; number++) await client.delete(`key-${number}`)
  await care.look(signal)
  expect(await client.alarms()).toEqual([])
  client.close()
})

test('the others are told of another address', async () => {
  const { client, care } = await member('https://192.0.2.7:2380')
  await expect(care.look(signal)).rejects.toThrow('MemberUpdate is not supported')
  client.close()
})
