import type { AppError } from '../../../src/base/errors.ts'
import { start } from './disk-program.ts'

/** Starts a datastore in DIRECTORY and stops it; prints as JSON what keeps it from starting. */
const outcome = await start().then(
  async (datastore) => {
    await datastore.stop()
    return {}
  },
  ({ code, message, remedy, fields }: AppError) => ({ ...fields, code, message, remedy }),
)
process.stdout.write(JSON.stringify(outcome))
