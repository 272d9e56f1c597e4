import { once } from 'node:events'
import { mkdirSync, mkdtempDisposableSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { holdResetLock, refuseDuringReset, resetLockPath } from '../../../src/control/reset-lock.ts'

function temporary(): string {
  const directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-reset-'))
  onTestFinished(() => directory.remove())
  return directory.path
}

test('nothing starts, and no second reset, while one is under way', async () => {
  const path = join(temporary(), 'lock.sock')
  await refuseDuringReset(path, 'start')
  {
    await using _lock = await holdResetLock(path, silentLogger)
    await expect(refuseDuringReset(path, 'start')).rejects.toMatchObject({
      code: 'RESET_RUNNING',
      message: `cannot start: \`k8s reset\` is under way in process ${process.pid}`,
    })
    await expect(holdResetLock(path, silentLogger)).rejects.toMatchObject({ code: 'RESET_RUNNING' })
  }
  await refuseDuringReset(path, 'start')
})

test('nothing starts either while one does not answer', async () => {
  const path = join(temporary(), 'lock.sock')
  const silent = createServer((connection) => void connection.destroy()).listen(path)
  onTestFinished(() => void silent.close())
  await once(silent, 'listening')
  await expect(refuseDuringReset(path, 'start')).rejects.toMatchObject({
    code: 'RESET_RUNNING',
    message: 'cannot start: `k8s reset` is under way',
  })
})

test('the lock is the same by whatever way one comes to the data directory', () => {
  const directory = temporary()
  mkdirSync(join(directory, 'data'))
  symlinkSync(join(directory, 'data'), join(directory, 'link'))
  const lock = (name: string) => resetLockPath(join(directory, name))
  expect(lock('link')).toBe(lock('data'))
  expect(lock('other')).not.toBe(lock('data'))
  expect(lock('data')).toMatch(/^\/run\/k8s-reset-[0-9a-f]{16}\.sock$/)
})
