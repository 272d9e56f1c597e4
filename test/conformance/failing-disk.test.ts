import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { RawClient, fieldsOf, message } from '../unit/datastore/support.ts'
import { temporaryDirectory } from './etcd-peer.ts'
import { datastoreCommand, root } from './go-suite.ts'
import { problemsOf } from './power-cut/found.ts'
import { Workload, end, startPreloaded } from './power-cut/workload.ts'

const build = join(root, 'build/conformance/failing-disk')
const writes = 120

/** A server whose disk fails on demand, which may be started again and again. */
async function failingDisk() {
  const command = `${await datastoreCommand('failing-disk')} --port 0`
  const library = join(build, 'failing.so')
  const source = join(root, 'test/conformance/failing-disk/failing.c')
  execFileSync('gcc', ['-O2', '-Wall', '-Werror', '-shared', '-fPIC', '-o', library, source, '-ldl'])
  const directory = realpathSync(temporaryDirectory())
  const data = join(directory, 'disk')
  mkdirSync(data)
  const env = { FAIL_DIRECTORY: data, FAIL_WHEN: join(directory, 'fails') }
  const start = async (): ReturnType<typeof startPreloaded> => {
    const started = await startPreloaded({ command, library, directory: data, env })
    onTestFinished(() => void started.process.kill('SIGKILL'))
    return started
  }
  return { start, env, library }
}

/** EIO, as of a disk that is breaking: nobody knows what of that moment's writes is on it. */
test.each(['sync', 'write'])(
  'a disk that cannot %s ends the server, with the reason; what was acknowledged is there when it can again',
  async (operation) => {
    const { start, env, library } = await failingDisk()
    const server = await start()
    const workload = new Workload(library)
    const client = new RawClient(server.listening)
    await workload.write(client, writes)
    expect(workload.acknowledged.writes.length).toBe(writes)

    const flag = `${env.FAIL_WHEN}.${operation}`
    writeFileSync(flag, '')
    const exited = once(server.process, 'exit')
    await workload.write(client, writes)
    expect(await exited).toEqual([1, null])
    expect(workload.acknowledged.writes.length).toBe(writes)
    expect(server.errors()).toContain('DATASTORE_WRITE')
    expect(server.errors()).toContain('disk I/O error')

    rmSync(flag)
    const again = await start()
    expect(await problemsOf(new RawClient(again.listening), workload.acknowledged, Infinity)).toEqual([])
    await end(again.process, 'SIGTERM')
  },
)

test('a share of the disk that is used up counts as a full disk: writes are refused until there is room, and go on by themselves', async () => {
  const { start, env } = await failingDisk()
  const server = await start()
  const client = new RawClient(server.listening)
  const put = (value: string): Promise<string> =>
    client.unary('/etcdserverpb.KV/Put', message({ 1: 'key', 2: value })).then(() => '', String)
  expect(await put('first')).toBe('')

  const flag = `${env.FAIL_WHEN}.quota`
  writeFileSync(flag, '')
  expect(await put('lost')).toContain('database space exceeded')
  const range = fieldsOf(await client.unary('/etcdserverpb.KV/Range', message({ 1: 'key' })))
  expect(String(fieldsOf(range.get(2)?.[0] as Buffer).get(5)?.[0])).toBe('first')
  expect(server.process.exitCode).toBeNull()

  rmSync(flag)
  await expect.poll(() => put('second'), { timeout: 60_000, interval: 250 }).toBe('')
  await end(server.process, 'SIGTERM')
})
