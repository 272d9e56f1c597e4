import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Paths, paths as pathsOf } from '../../../src/config/paths.ts'
import { checkDatabase } from '../../../src/datastore/log/soundness.ts'
import { inspectDatabase } from '../../../src/datastore/log/inspect.ts'
import { finishReplacement } from '../../../src/snapshot/replacement.ts'
import { revisionBump } from '../../../src/snapshot/restore.ts'
import { bundleFiles } from '../../../src/pki/bundle.ts'
import { runProcess } from '../cli/run-cli.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { commandEnvironment, dataDirectory, save, serve, writeKeys } from './support.ts'

const copyAtStep = new URL('../../fixtures/copy-at-step.ts', import.meta.url).pathname

test('a restore that is killed at any of its steps leaves the old state or the new one', async () => {
  const origin = dataDirectory()
  writeKeys(origin, 'snapshot')
  writeFileSync(origin.clusterFacts, 'snapshot')
  const { put, datastore } = await serve(origin)
  await put('a', 'old')
  const { path } = await save(origin)
  await put('a', 'new')
  await datastore.stop()
  writeKeys(origin, 'later')
  writeFileSync(origin.clusterFacts, 'later')
  const before = { revision: 3, findings: [], keys: ['later'], facts: 'later' }
  const after = { revision: 3 + revisionBump, findings: [], keys: ['snapshot'], facts: 'snapshot' }

  const states: object[] = []
  for (const dataDir of await restoreStepByStep(origin, path)) {
    const paths = pathsOf({ dataDir })
    // As the next start of the daemon does.
    await finishReplacement(paths, undefined)
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

/** Restores; returns directories as a kill before each step would have left that of the data, and as it is at the end. */
async function restoreStepByStep({ dataDir }: Paths, snapshot: string): Promise<string[]> {
  const copies = temporaryDirectory()
  const { code, stderr } = await runProcess({
    args: ['snapshot', 'restore', snapshot, `--data-dir=${dataDir}`],
    environment: {
      ...commandEnvironment(),
      NODE_OPTIONS: `--import=${copyAtStep}`,
      K8S_TEST_DATA: dataDir,
      K8S_TEST_COPIES: copies,
    },
  })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return [...readdirSync(copies).map((_, step) => join(copies, String(step))), dataDir]
}

type State = Pick<Paths, 'database' | 'pkiDir' | 'clusterFacts'>

function stateOf({ database, pkiDir, clusterFacts }: State) {
  const keys = bundleFiles(pkiDir).map(({ path }) => readFileSync(path, 'utf8'))
  return {
    revision: inspectDatabase({ path: database }).revision,
    findings: checkDatabase({ path: database }),
    keys: [...new Set(keys)],
    facts: readFileSync(clusterFacts, 'utf8'),
  }
}

/** What the restore has put aside. */
function keptOf({ dataDir }: Paths): State {
  const replaced = readdirSync(join(dataDir, 'replaced')).map((name) => join(dataDir, 'replaced', name))
  expect(replaced).toHaveLength(1)
  const [kept = ''] = replaced
  return pathsOf({ dataDir: kept })
}
