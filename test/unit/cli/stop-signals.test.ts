import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'

const fixture = new URL('../../fixtures/stop-signals.ts', import.meta.url).pathname

/** A process with these handlers; `line` is the next one that it says. */
async function start(command: string, args: readonly string[]) {
  const child: ChildProcess = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]()
  const line = async () => (await lines.next()).value as string
  expect(await line()).toBe('waits')
  return { child, line }
}

test('the first signal asks for the stop, the second hurries it, and later ones change nothing', async () => {
  const { child, line } = await start(process.execPath, [fixture])
  child.kill('SIGTERM')
  expect(await line()).toBe('stop SIGTERM')
  child.kill('SIGINT')
  expect(await line()).toBe('hurry SIGINT')
  child.kill('SIGINT')
  child.kill('SIGKILL')
  expect(await once(child, 'exit')).toEqual([null, 'SIGKILL'])
})

test('a terminal that is closed asks for the stop', async () => {
  const { child, line } = await start(process.execPath, [fixture])
  child.kill('SIGHUP')
  expect(await line()).toBe('stop SIGHUP')
})

test('under nohup it does not', async () => {
  const { child, line } = await start('nohup', [process.execPath, fixture])
  child.kill('SIGHUP')
  child.kill('SIGTERM')
  expect(await line()).toBe('stop SIGTERM')
})
