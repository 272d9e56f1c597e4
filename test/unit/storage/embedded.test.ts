import { execFileSync } from 'node:child_process'
import { closeSync, openSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import type { Config } from '../../../src/config/config.ts'
import type { Paths } from '../../../src/config/paths.ts'
import type { Payload } from '../../../src/payload/payload.ts'
import { embeddedStorage } from '../../../src/storage/embedded.ts'
import { fixture, temporaryDirectory, until } from '../supervisor/support.ts'

test('a datastore whose thread hangs is shown so, and no watchdog is fed', async () => {
  using directory = temporaryDirectory()
  const pipe = join(directory.path, 'pipe')
  execFileSync('mkfifo', [pipe])
  const storage = embeddedStorage({
    config: {} as Config,
    paths: { database: pipe, datastoreSocket: join(directory.path, 'socket') } as Paths,
    payload: {
      datastoreWorker: pathToFileURL(fixture('stuck-worker.ts')),
      sqliteAddon: '',
      bin: (name: string) => name,
    } as unknown as Payload,
    log: silentLogger,
    silenceLimitMs: 50,
  })
  expect(await storage.snapshots?.createdAt()).toEqual(statSync(pipe).birthtime)
  const [component] = storage.components
  const signal = new AbortController().signal
  await component!.start(signal)
  await component!.ready(signal)
  // Until it is closed the thread reads.
  const writer = openSync(pipe, 'w')
  await until(() => component!.status().state === 'unresponsive')
  expect(component!.status().reason).toBe('its thread does not answer')
  let hasAnswered = false
  void storage.ping().then(() => (hasAnswered = true))
  await new Promise(setImmediate)
  expect(hasAnswered).toBe(false)
  closeSync(writer)
  expect(await storage.failed).toMatchObject({ code: 'DATASTORE_FAILED' })
})
