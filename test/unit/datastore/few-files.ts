import { silentLogger } from '../../../src/base/logger.ts'
import { startDatastore } from '../../../src/datastore/datastore.ts'

/** Serves a database (first argument) until its standard input ends: for limits that only a process of its own has. */

const [, , path = ''] = process.argv
const loopback = { host: '127.0.0.1', port: 0 }
const datastore = await startDatastore({
  path,
  listen: loopback,
  metricsListen: loopback,
  workerUrl: new URL('../../../src/datastore/worker.ts', import.meta.url),
  log: Object.assign(Object.create(silentLogger), {
    error: (fields: object, message: string) => console.log(JSON.stringify({ message, ...fields })),
  }),
})
const { listening, metricsUrl } = datastore
console.log(JSON.stringify({ listening, metricsUrl }))
void datastore.failed.then((error) => console.log(JSON.stringify({ failed: error.message })))
process.stdin.on('end', () => datastore.stop()).resume()
