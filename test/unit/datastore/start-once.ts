import { join } from 'node:path'
import type { AppError } from '../../../src/base/errors.ts'
import { silentLogger } from '../../../src/base/logger.ts'
import { startDatastore } from '../../../src/datastore/datastore.ts'

/** Starts a datastore in DIRECTORY and stops it; prints as JSON what keeps it from starting. */
const [directory = '', worker = ''] = process.argv.slice(2)
const outcome = await startDatastore({
  path: join(directory, 'state.db'),
  listen: { host: '127.0.0.1', port: 0 },
  workerUrl: new URL(worker),
  log: silentLogger,
}).then(
  async (datastore) => {
    await datastore.stop()
    return {}
  },
  ({ code, message, remedy, fields }: AppError) => ({ ...fields, code, message, remedy }),
)
process.stdout.write(JSON.stringify(outcome))
