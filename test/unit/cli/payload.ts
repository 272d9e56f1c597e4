import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

const root = new URL('../../../', import.meta.url).pathname

/** A payload with what the datastore's commands need of it, from the sources; it goes with the test. */
export function datastorePayload(): string {
  const directory = mkdtempSync(join(tmpdir(), 'k8s-payload-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  const lib = join(directory, 'lib')
  mkdirSync(lib)
  writeFileSync(join(lib, 'version.json'), '{"gitVersion":"v0"}')
  writeFileSync(join(lib, 'datastore-worker.js'), `await import('${root}src/datastore/worker.ts')\n`)
  symlinkSync(
    join(root, 'node_modules/better-sqlite3/prebuilds/linux-x64.node'),
    join(lib, 'better_sqlite3.node'),
  )
  return directory
}
