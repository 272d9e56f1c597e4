import { mkdirSync } from 'node:fs'
import { parseArgs } from 'node:util'

import { createLogger } from '../../../src/base/logger.ts'
import { startDatastore } from '../../../src/datastore/datastore.ts'

/** Serves a datastore for the storage suite until SIGTERM. */

const { values } = parseArgs({
  options: {
    'data-dir': { type: 'string' },
    port: { type: 'string', default: '0' },
    'progress-notify-interval-ms': { type: 'string' },
    'cert-file': { type: 'string', default: '' },
    'key-file': { type: 'string', default: '' },
    'trusted-ca-file': { type: 'string', default: '' },
    unix: { type: 'string' },
  },
})
const directory = values['data-dir'] as string
mkdirSync(directory, { recursive: true })
const interval = values['progress-notify-interval-ms']
const tls =
  values['cert-file'] === ''
    ? undefined
    : {
        certFile: values['cert-file'],
        keyFile: values['key-file'],
        trustedCaFile: values['trusted-ca-file'] || undefined,
      }
const datastore = await startDatastore({
  path: `${directory}/db/state.db`,
  listen:
    values.unix === undefined
      ? { host: '127.0.0.1', port: Number(values.port), tls }
      : { unixPath: values.unix },
  workerUrl: new URL(process.env.DATASTORE_WORKER ?? '../../../src/datastore/worker.ts', import.meta.url),
  log: createLogger({ format: 'text' }),
  ...(interval === undefined ? {} : { progressNotifyIntervalMs: Number(interval) }),
})
console.log(`serving on ${datastore.listening} after ${performance.now().toFixed(0)} ms`)
process.on('SIGTERM', () => void datastore.stop().then(() => process.exit(0)))
void datastore.failed.then((error) => {
  console.error(error)
  process.exit(1)
})
