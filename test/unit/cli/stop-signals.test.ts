import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'

const fixture = new URL('../../fixtures/stop-signals.ts', import.meta.url).pathname

/** A process with these handlers; `line` is the next one that it says. */
async function start(env: Readonly<Record<string, string>> = {}) {
  const child: ChildProcess = spawn(process.execPath, [fixture], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]()
  const exited = once(child, 'exit')
  const line = async () => {
    const { done, value } = await lines.next()
    if (done === true) throw new Error(`it said no more, and ended with ${JSON.stringify(await exited)}`)
    return value
  }
  expect(await line()).toBe('waits')
  return { child, line }
}

test('the first signal asks for the stop, the second hurries it, and later ones change nothing', async () => {
  const { child, line } = await start()
  child.kill('SIGTERM')
  expect(await line()).toBe('stop SIGTERM')
  child.kill('SIGINT')
  expect(await line()).toBe('hurry SIGINT')
  child.kill('SIGINT')
  child.kill('SIGKILL')
  expect(await once(child, 'exit')).toEqual([null, 'SIGKILL'])
})

test('a terminal that is closed asks for the stop', async () => {
  const { child, line } = await start()
  child.kill('SIGHUP')
  expect(await line()).toBe('stop SIGHUP')
})

test('under nohup, of which the launcher tells, it does not', async () => {
  const { child, line } = await start({ K8S_HANGUP_IGNORED: '1' })
  child.kill('SIGHUP')
  child.kill('SIGTERM')
  expect(await line()).toBe('stop SIGTERM')
})
