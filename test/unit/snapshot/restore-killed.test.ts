import { cpSync, existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Paths, paths as pathsOf } from '../../../src/config/paths.ts'
import { checkDatabase } from '../../../src/datastore/log/soundness.ts'
import { inspectDatabase } from '../../../src/datastore/log/inspect.ts'
import { finishRestore, revisionBump } from '../../../src/snapshot/restore.ts'
import { keyFileNames } from '../../../src/snapshot/save.ts'
import { runProcess } from '../cli/run-cli.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { commandEnvironment, dataDirectory, save, serve, writeKeys } from './support.ts'

const dieAtStep = new URL('../../fixtures/die-at-step.ts', import.meta.url).pathname
const minuteMs = 60_000

test('a restore that is killed at any of its steps leaves the old state or the new one', {
  timeout: 5 * minuteMs,
}, async () => {
  const origin = dataDirectory()
  writeKeys(origin, 'snapshot')
  const { put, datastore } = await serve(origin)
  await put('a', 'old')
  const { path } = await save(origin)
  await put('a', 'new')
  await datastore.stop()
  writeKeys(origin, 'later')
  const before = { revision: 3, findings: [], keys: ['later'] }
  const after = { revision: 3 + revisionBump, findings: [], keys: ['snapshot'] }

  const states: object[] = []
  for (let isWhole = false; !isWhole; ) {
    const paths = pathsOf({ dataDir: join(temporaryDirectory(), 'data') })
    cpSync(origin.dataDir, paths.dataDir, { recursive: true })
    isWhole = await restoreUntil(paths, { path, step: states.length })
    // As the next start of the daemon does.
    await finishRestore(paths, undefined)
    const state = stateOf(paths)
    states.push(state)
    if (state.revision === after.revision) expect(stateOf(keptOf(paths))).toEqual(before)
    for (const leftover of ['restore', 'restore.preparing'])
      expect(existsSync(join(paths.dataDir, leftover))).toBe(false)
  }
  const decided = states.findIndex((state) => 'revision' in state && state.revision !== before.revision)
  expect(decided).toBeGreaterThan(5)
  expect(states.length - decided).toBeGreaterThan(5)
  expect(states).toEqual(states.map((_, step) => (step < decided ? before : after)))
})

/** false: it was killed before its end. */
async function restoreUntil(
  { dataDir }: Paths,
  { path, step }: { path: string; step: number },
): Promise<boolean> {
  const { code, stderr } = await runProcess({
    args: ['snapshot', 'restore', path, `--data-dir=${dataDir}`],
    environment: {
      ...commandEnvironment(),
      NODE_OPTIONS: `--import=${dieAtStep}`,
      K8S_TEST_STEP: String(step),
    },
  })
  expect(stderr).toBe('')
  return code === 0
}

function stateOf({ database, pkiDir }: Pick<Paths, 'database' | 'pkiDir'>) {
  const keys = keyFileNames(pkiDir).map(({ file }) => readFileSync(join(pkiDir, file), 'utf8'))
  return {
    revision: inspectDatabase({ path: database }).revision,
    findings: checkDatabase({ path: database }),
    keys: [...new Set(keys)],
  }
}

/** What the restore has put aside. */
function keptOf({ dataDir }: Paths): Pick<Paths, 'database' | 'pkiDir'> {
  const replaced = readdirSync(join(dataDir, 'replaced')).map((name) => join(dataDir, 'replaced', name))
  expect(replaced).toHaveLength(1)
  const [kept = ''] = replaced
  return { database: join(kept, 'db', 'state.db'), pkiDir: join(kept, 'pki') }
}
