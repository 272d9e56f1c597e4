import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { PastReader } from '../../../src/datastore/log/past-reader.ts'
import { openDatabase } from '../../../src/datastore/log/schema.ts'
import { temporaryDirectory } from './support.ts'

test('nothing that is read between two requests goes through the whole log', () => {
  const database = openDatabase({ path: join(temporaryDirectory(), 'state.db'), cacheBytes: 1024 ** 2 })
  onTestFinished(() => void database.close())
  const statements: string[] = []
  const prepare = database.prepare.bind(database)
  database.prepare = ((sql: string) => {
    statements.push(sql)
    return prepare(sql)
  }) as typeof database.prepare
  void new PastReader(database, (read) => read())
  expect(statements.length).toBeGreaterThan(5)
  for (const sql of statements) {
    const unbound = sql.replaceAll('?', '1')
    const steps = prepare(`EXPLAIN QUERY PLAN ${unbound}`).all() as { detail: string }[]
    const scanned = steps.filter(({ detail }) => /^SCAN (?!CONSTANT ROW|\(subquery)/.test(detail))
    expect(scanned, sql).toEqual([])
  }
})
