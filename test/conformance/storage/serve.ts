import { parseArgs } from 'node:util'
import { createLogger } from '../../../src/base/logger.ts'
import { defaultSettings, startDatastore } from '../../../src/datastore/datastore.ts'

/** Serves a datastore for the storage suite, as bundle.ts bundles it, until SIGTERM. */

declare const SQLITE_ADDON: string

const { values } = parseArgs({
  options: {
    'data-dir': { type: 'string', default: '' },
    port: { type: 'string', default: '0' },
    'progress-notify-interval-ms': { type: 'string', default: '5000' },
    'quota-bytes': { type: 'string', default: String(defaultSettings.quotaBytes) },
    'etcd-file': { type: 'string' },
    'cert-file': { type: 'string', default: '' },
    'key-file': { type: 'string', default: '' },
    'trusted-ca-file': { type: 'string', default: '' },
  },
})
const certFile = values['cert-file']
const tls = {
  certFile,
  keyFile: values['key-file'],
  trustedCaFile: values['trusted-ca-file'] === '' ? undefined : values['trusted-ca-file'],
}
const datastore = await startDatastore({
  path: `${values['data-dir']}/db/state.db`,
  listen: { host: '127.0.0.1', port: Number(values.port), tls: certFile === '' ? undefined : tls },
  workerUrl: new URL('./datastore-worker.js', import.meta.url),
  nativeBinding: SQLITE_ADDON,
  log: createLogger({ format: 'text' }),
  progressNotifyIntervalMs: Number(values['progress-notify-interval-ms']),
  quotaBytes: Number(values['quota-bytes']),
  etcdFileProgram: values['etcd-file'],
})
console.log(`serving on ${datastore.listening}`)
process.on('SIGTERM', () => void datastore.stop().then(() => process.exit(0)))
void datastore.failed.then((error) => {
  console.error(error)
  process.exit(1)
})
