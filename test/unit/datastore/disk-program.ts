import { join } from 'node:path'
import { silentLogger } from '../../../src/base/logger.ts'
import { type Datastore, startDatastore } from '../../../src/datastore/datastore.ts'

/*
 * For programs that try a datastore on a disk of their own, in a mount namespace of their own:
 *
 *   node PROGRAM.ts DIRECTORY WORKER_URL
 */
const [given = '', worker = ''] = process.argv.slice(2)

export const directory = given
export const path = join(directory, 'state.db')

/** Starts the datastore, or another one in a file beside it. */
export function start(database = path): Promise<Datastore> {
  return startDatastore({
    path: database,
    listen: { host: '127.0.0.1', port: 0 },
    workerUrl: new URL(worker),
    log: silentLogger,
  })
}
