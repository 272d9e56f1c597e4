import { rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { checkDatabase } from '../../../src/datastore/log/soundness.ts'
import { directory, path, start } from './disk-program.ts'
import { EtcdClient } from './etcd-client.ts'

/**
 * What happens when a disk that was full has room again, and nobody disarms the alarm: a program, since it has to run in
 * a mount namespace of its own with a tmpfs as DIRECTORY. Prints one JSON object of what it saw.
 *
 *   node disk-heals.ts DIRECTORY WORKER_URL
 */
const ballast = join(directory, 'ballast')
const datastore = await start()
const client = new EtcdClient(datastore.listening)
const value = Buffer.alloc(10_000, 'v')
await client.put('key', value)
const troubleBefore = datastore.trouble() ?? null
const { bavail, bsize } = statfsSync(directory)
writeFileSync(ballast, Buffer.alloc(bavail * bsize - 64 * 1024))
let refusal = ''
while (refusal === '') await client.put('key', value).catch((error: Error) => (refusal = error.message))
const trouble = datastore.trouble()
rmSync(ballast)
// Until somebody looks, writes are refused; how long that takes is nobody's promise.
let revision = 0
while (revision === 0) {
  revision = await client.put('key', value).catch(() => 0)
  if (revision === 0) await sleep(100)
}
const after = { alarms: await client.alarms(), trouble: datastore.trouble() ?? null }
client.close()
await datastore.stop()
process.stdout.write(
  JSON.stringify({ troubleBefore, refusal, trouble, after, found: checkDatabase({ path }) }),
)
process.exit(0)
