import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { RawClient } from '../unit/datastore/support.ts'
import { temporaryDirectory } from './etcd-peer.ts'
import { datastoreCommand, root } from './go-suite.ts'
import { problemsOf } from './power-cut/found.ts'
import { Workload, end, startPreloaded } from './power-cut/workload.ts'

const build = join(root, 'build/conformance/failing-disk')
const writes = 120

/** EIO, as of a disk that is breaking: nobody knows what of that moment's writes is on it. */
test.each(['sync', 'write'])(
  'a disk that cannot %s ends the server, with the reason; what was acknowledged is there when it can again',
  async (operation) => {
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
