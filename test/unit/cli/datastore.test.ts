import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { DaemonStatus } from '../../../src/control/messages.ts'
import { freePort } from '../../free-port.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { datastorePayload } from './payload.ts'
import { runCli, runProcess } from './run-cli.ts'

const main = new URL('../../../src/main.ts', import.meta.url).pathname

/** A datastore as a process of its own, which serves; `args` begin with what runs it. */
async function serve(dataDir: string, args: readonly string[], environment = {}) {
  const socket = join(temporaryDirectory(), 'datastore.sock')
  const child = spawn(
    process.execPath,
    [main, ...args, `--data-dir=${dataDir}`, `--listen-address=unix://${socket}`],
    {
      env: { PATH: process.env['PATH'], K8S_PAYLOAD_DIR: datastorePayload(), ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  onTestFinished(() => void child.kill('SIGKILL'))
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  expect(String(line)).toBe(`serving on unix://${socket}\n`)
  return { child, ended: once(child, 'exit') as Promise<[number | null]> }
}

describe('the role datastore', () => {
  test('is shown and stopped as any other, by its data directory alone', async () => {
    const dataDir = join(temporaryDirectory(), 'data')
    const { child, ended } = await serve(dataDir, ['datastore'])
    const shown = await runCli({ args: ['status', '-o', 'json', `--data-dir=${dataDir}`] })
    expect(shown).toMatchObject({ code: 0, stderr: '' })
    const status = JSON.parse(shown.stdout) as DaemonStatus
    expect(status).toMatchObject({ role: 'datastore', version: 'v0', state: 'ready', problems: [] })
    expect(status).not.toHaveProperty('nodeName')
    expect(status.components).toMatchObject([{ name: 'datastore', state: 'ready', pid: child.pid }])
    const table = await runCli({ args: ['status', '--wait', `--data-dir=${dataDir}`] })
    expect(table.stdout).toContain('\nThe datastore is ready.\n')

    const pods = await runCli({ args: ['stop', '--pods', `--data-dir=${dataDir}`] })
    expect(pods).toMatchObject({
      code: 1,
      stderr: 'k8s: cannot end pods: a datastore has none. Stop it without --pods\n',
    })
    expect(await runCli({ args: ['stop', `--data-dir=${dataDir}`] })).toMatchObject({
      code: 0,
      stdout: 'Stopped.\n',
    })
    expect(await ended).toEqual([0, null])
  })

  test('is run by k8s alone where the settings say so, and once there is one, where they say nothing', async () => {
    const dataDir = join(temporaryDirectory(), 'data')
    const first = await serve(dataDir, ['--role=datastore'])
    first.child.kill('SIGTERM')
    expect(await first.ended).toEqual([0, null])
    expect(JSON.parse(readFileSync(join(dataDir, 'node.json'), 'utf8'))).toMatchObject({
      settings: { role: 'datastore' },
    })
    const second = await serve(dataDir, [])
    second.child.kill('SIGTERM')
    expect(await second.ended).toEqual([0, null])
  })

  test('has a data directory alone', async () => {
    const dataDir = join(temporaryDirectory(), 'data')
    await serve(dataDir, ['datastore'])
    const socket = join(temporaryDirectory(), 'other.sock')
    const { code, stderr } = await runProcess({
      args: ['datastore', `--data-dir=${dataDir}`, `--listen-address=unix://${socket}`],
      environment: { K8S_PAYLOAD_DIR: datastorePayload() },
    })
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining('daemon with pid') })
  })

  test('is not reset while it runs; then its data directory goes, and nothing else is looked at', async () => {
    const dataDir = join(temporaryDirectory(), 'data')
    const { child, ended } = await serve(dataDir, ['datastore'])
    const args = ['reset', '--force', `--data-dir=${dataDir}`]
    const environment = { K8S_PAYLOAD_DIR: datastorePayload() }
    expect(await runProcess({ args, environment })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('cannot reset: the daemon runs'),
    })
    child.kill('SIGTERM')
    await ended
    writeFileSync(join(dataDir, 'mine'), '')
    const { code, stdout } = await runProcess({ args, environment })
    expect(code).toBe(0)
    expect(readdirSync(dataDir)).toEqual(['mine'])
    const steps = stdout.trim().split('\n')
    expect(steps.every((step) => step.includes(dataDir))).toBe(true)
  })

  test('tells a service manager that it serves', async () => {
    // A file stands for the socket that the launcher has connected.
    const told = join(temporaryDirectory(), 'told')
    const dataDir = join(temporaryDirectory(), 'data')
    const socket = join(temporaryDirectory(), 'datastore.sock')
    const child = spawn(
      'bash',
      [
        '-c',
        `exec 9>>"${told}"; exec "${process.execPath}" "${main}" datastore "--data-dir=${dataDir}" "--listen-address=unix://${socket}"`,
      ],
      {
        env: { PATH: process.env['PATH'], K8S_PAYLOAD_DIR: datastorePayload(), K8S_NOTIFY_FD: '9' },
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    )
    onTestFinished(() => void child.kill('SIGKILL'))
    await once(child.stdout, 'data')
    expect(readFileSync(told, 'utf8')).toContain(`READY=1STATUS=serving on unix://${socket}`)
    child.kill('SIGTERM')
    await once(child, 'exit')
    expect(readFileSync(told, 'utf8')).toContain('STOPPING=1')
  })
})

describe('k8s check of a datastore', () => {
  test('asks for neither root nor what pods need', async () => {
    const dataDir = join(temporaryDirectory(), 'data')
    const [port, metrics] = [await freePort(), await freePort()]
    const args = ['check', '-o=json', '--role=datastore', `--data-dir=${dataDir}`]
    const flags = [`--listen-address=127.0.0.1:${port}`, `--metrics-address=127.0.0.1:${metrics}`]
    const { code, stdout } = await runCli({ args: [...args, ...flags] })
    const found = JSON.parse(stdout) as { name: string; state: string; detail: string }[]
    expect(found.map(({ name }) => name)).toEqual(['clock', 'data directory', 'disk space', 'ports'])
    expect(found.at(-1)).toMatchObject({ state: 'ok', detail: `${port}, ${metrics} are free` })
    expect(code).toBe(0)
    const alone = await runCli({ args: [...args, '--listen-address=unix:///x.sock'] })
    expect(alone.stdout).toContain('none are needed')
  })

  test('names a port that is taken, with its flag', async () => {
    const dataDir = join(temporaryDirectory(), 'data')
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    onTestFinished(() => void other.close())
    const { port } = other.address() as { port: number }
    const args = ['check', '--role=datastore', `--data-dir=${dataDir}`, `--listen-address=127.0.0.1:${port}`]
    const { code, stdout } = await runCli({ args })
    expect(code).toBe(1)
    expect(stdout).toMatch(new RegExp(`^port ${port} +missing +taken; --listen-address has it$`, 'm'))
    expect(stdout).toContain(`\nThis machine cannot run the datastore: port ${port}.\n`)
  })
})
