import Database from 'better-sqlite3'

import type { DatabaseFile } from './inspect.ts'
import { openReadOnly, runMigrations } from './schema.ts'

/**
 * The first thing in a database that this program did not make, or that is missing: a trigger, a view or a table that
 * computes would run when the database is used. undefined: none. Reads the schema alone, for files of anybody.
 */
export function foreignObject(file: DatabaseFile): string | undefined {
  const { nativeBinding } = file
  const own = new Database(':memory:', nativeBinding === undefined ? {} : { nativeBinding })
  const database = openReadOnly(file)
  try {
    const version = database.pragma('user_version', { simple: true }) as number
    runMigrations(own, 0, version)
    const [expected, found] = [objectsOf(own), objectsOf(database)]
    const differing =
      [...found].find((object) => !expected.has(object)) ?? [...expected].find((object) => !found.has(object))
    return differing?.split('\n', 1)[0]
  } finally {
    database.close()
    own.close()
  }
}

/** Each with its kind and name in its first line. */
function objectsOf(database: Database.Database): Set<string> {
  const rows = database
    .prepare('SELECT type, name, tbl_name, sql FROM sqlite_schema')
    .raw()
    .all() as string[][]
  return new Set(rows.map(([type, name, table, sql]) => `${type} ${JSON.stringify(name)}\n${table}\n${sql}`))
}
