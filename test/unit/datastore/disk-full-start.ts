import { statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describeError, errorCode } from '../../../src/base/errors.ts'
import type { Datastore } from '../../../src/datastore/datastore.ts'
import { directory, start } from './disk-program.ts'
import { EtcdClient } from './etcd-client.ts'

/**
 * What happens when a datastore is started again while its disk is full, to the last byte: a program, since it has to
 * run in a mount namespace of its own with a small tmpfs as DIRECTORY. Prints one JSON object of what it saw.
 *
 *   node disk-full-start.ts DIRECTORY WORKER_URL
 */
let files = 0
const fill = () => {
  const { bavail, bsize } = statfsSync(directory)
  if (bavail > 0) writeFileSync(join(directory, `ballast-${files++}`), Buffer.alloc(bavail * bsize))
}

const value = Buffer.alloc(10_000, 'v')
let datastore: Datastore = await start()
let client = new EtcdClient(datastore.listening)
for (let key = 0; key < 50; key++) await client.put(`key-${key}`, value)
fill()
const refusal = await client.put('key', value).then(String, (error: Error) => error.message)
client.close()
// What is in the WAL cannot be brought into the database, and stays there.
await datastore.stop()
fill()
datastore = await start()
client = new EtcdClient(datastore.listening)
const again = {
  count: (await client.count('key-')).count,
  refusal: await client.put('key', value).then(String, (error: Error) => error.message),
  trouble: datastore.trouble(),
}
client.close()
await datastore.stop()
const other = await start(join(directory, 'other.db')).then(
  () => 'it serves',
  (error: unknown) => ({ code: errorCode(error), message: describeError(error) }),
)
process.stdout.write(JSON.stringify({ refusal, again, other }))
process.exit(0)
