import { existsSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { checkDatabase } from '../../../src/datastore/log/soundness.ts'
import { directory, path, start } from './disk-program.ts'
import { EtcdClient } from './etcd-client.ts'

/**
 * What happens to a datastore whose disk becomes full: a program, since it has to run in a mount namespace of
 * its own with a small tmpfs as DIRECTORY. Prints one JSON object of what it saw.
 *
 *   node disk-full.ts DIRECTORY WORKER_URL
 */
const ballast = join(directory, 'ballast')

const value = Buffer.alloc(10_000, 'v')
let datastore = await start()
let client = new EtcdClient(datastore.listening)
let acknowledged = 0
for (; acknowledged < 100; acknowledged++) await client.put(`key-${acknowledged}`, value)
const events = await client.watch('key-')

// Another program takes all that is left.
const { bavail, bsize } = statfsSync(directory)
writeFileSync(ballast, Buffer.alloc(bavail * bsize - 64 * 1024))
let refusal = ''
for (let place = 0; refusal === ''; place = (place + 1) % 100) {
  await client.put(`key-${place}`, value).then(
    () => acknowledged++,
    (error: Error) => (refusal = error.message),
  )
}
const revision = acknowledged + 1
const read = await client.get('key-1')
const list = await client.count('key-')
const alarms = await client.alarms()
// Nothing but the disarmed alarm lets writes in again, not even the space.
const refusedDelete = await client.delete('key-1').then(String, (error: Error) => error.message)
const found = checkDatabase({ path })
rmSync(ballast)
const stillRefused = await client.put('key-1', value).then(String, (error: Error) => error.message)
await client.disarm()
for (let more = 0; more < 50; more++) await client.put(`key-${more}`, value)
const after = { alarms: await client.alarms(), revision: await client.revision() }
const deadline = performance.now() + 20_000
while (events.length < after.revision - 101 && performance.now() < deadline) await sleep(20)
client.close()
await datastore.stop()
datastore = await start()
client = new EtcdClient(datastore.listening)
const restarted = { ...(await client.count('key-')) }
client.close()
await datastore.stop()

process.stdout.write(
  JSON.stringify({
    refusal,
    revision,
    readBytes: read?.length,
    readRevision: list.revision,
    count: list.count,
    alarms,
    refusedDelete,
    found,
    stillRefused,
    after,
    isWatchComplete: events.every((event, place) => event === 102 + place),
    events: events.length,
    restarted,
    foundAfter: checkDatabase({ path }),
    isBallastGone: !existsSync(ballast),
  }),
)
process.exit(0)
