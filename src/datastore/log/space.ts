import type { Database } from 'better-sqlite3'

/** How much space the database has and uses. */
export interface SpaceUse {
  readonly bytes: number
  readonly bytesInUse: number
}

export function measureSpace(database: Database): SpaceUse {
  const [bytes = 0, bytesInUse = 0] = database
    .prepare(
      `SELECT page_count * page_size, (page_count - freelist_count) * page_size
       FROM pragma_page_count, pragma_page_size, pragma_freelist_count`,
    )
    .raw()
    .get() as number[]
  return { bytes, bytesInUse }
}
