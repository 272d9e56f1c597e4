import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { errorCode } from '../../../src/base/errors.ts'
import { runCommand } from '../../../src/supervisor/spawn.ts'
import { readStat } from '../../../src/base/proc.ts'
import { environment, program, shell, supervise, temporaryDirectory, until, untilStatus } from './support.ts'

const never = new AbortController().signal

describe('start', () => {
  test('resolves when the process runs', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    await child.supervised.start()
    const { state, pid, restarts } = child.supervised.status()
    expect({ state, restarts }).toEqual({ state: 'running', restarts: 0 })
    expect(readStat(pid!)).toMatchObject({ parentPid: process.pid, session: pid })
  })

  test('is refused while it runs', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    await child.supervised.start()
    await expect(child.supervised.start()).rejects.toMatchObject({
      message: 'cannot start child: it is running',
      code: 'PROCESS_STARTED',
    })
  })

  test('rejects when there is no such program, and leaves nothing to stop', async () => {
    await using child = supervise({ command: '/nowhere/kubelet', args: [] })
    await expect(child.supervised.start()).rejects.toMatchObject({ code: 'SPAWN_FAILED' })
    expect(child.supervised.status()).toMatchObject({ state: 'stopped', restarts: 0 })
    await child.supervised.stop(never)
  })

  test('is legal again after a stop', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    await child.supervised.start()
    const before = child.supervised.status()
    await child.supervised.stop(never)
    await child.supervised.start()
    expect(child.supervised.status()).toMatchObject({ state: 'running', restarts: 0 })
    expect(child.supervised.status().pid).not.toBe(before.pid)
  })

  test('needs no record: what cannot be written costs a warning', async () => {
    // No directory can be made there (below /proc Node's recursive mkdir would try for ever).
    await using child = supervise({ ...shell('exec sleep 1000'), recordDir: '/sys/none' })
    await child.supervised.start()
    expect(child.records()).toContainEqual(
      expect.objectContaining({ level: 'warn', msg: 'cannot keep the record of the process' }),
    )
  })

  test('rejects when it cannot tell whether an earlier one still runs', async () => {
    await using child = supervise({ ...shell('exec sleep 1000'), recordDir: import.meta.filename })
    await expect(child.supervised.start()).rejects.toMatchObject({ code: 'PROCESS_RECORD' })
    expect(child.supervised.status().state).toBe('stopped')
  })
})

describe('a process that exits', () => {
  test('is started again and again', async () => {
    await using child = supervise(shell('exit 3'))
    await child.supervised.start()
    await untilStatus(child.supervised, ({ restarts, state }) => restarts === 3 && state === 'running')
    const messages = child.records().map(({ msg }) => msg)
    expect(messages.filter((msg) => msg === 'started')).toHaveLength(1)
    expect(messages.filter((msg) => msg === 'restarted').length).toBeGreaterThanOrEqual(3)
  })

  test('even with code 0, as it should run', async () => {
    await using child = supervise(shell('exit 0'))
    await child.supervised.start()
    const { lastFailure } = await untilStatus(child.supervised, ({ state }) => state === 'backoff')
    expect(lastFailure).toMatchObject({
      exitCode: 0,
      message: expect.stringMatching(/^child exited with code 0 after /),
    })
  })

  test('says its code, its time and its last lines', async () => {
    await using child = supervise({
      ...shell('for i in $(seq 40); do echo "line $i"; done; echo "Error: no such disk" >&2; exit 3'),
      name: 'kube-scheduler',
    })
    await child.supervised.start()
    const { lastFailure } = await untilStatus(child.supervised, ({ state }) => state === 'backoff')
    expect(lastFailure!.exitCode).toBe(3)
    expect(lastFailure!.message).toMatch(
      /^kube-scheduler exited with code 3 after [\d.]+ m?s; Error: no such disk$/,
    )
    expect(lastFailure!.lastLines).toHaveLength(20)
    expect(lastFailure!.lastLines).toContain('Error: no such disk')
    const logged = child.records().find(({ level, exitCode }) => level === 'error' && exitCode === 3)
    expect(logged).toMatchObject({
      component: 'kube-scheduler',
      msg: lastFailure!.message,
      failuresInRow: 1,
      uptimeMs: lastFailure!.uptimeMs,
      lastLines: lastFailure!.lastLines.slice(-10),
    })
  })

  test.each([
    [
      'klog',
      'E1121 10:00:00.123456 1 run.go:72] "command failed" err="stat /x: no such file"',
      'command failed: stat /x: no such file',
    ],
    ['logfmt', 'time="2026-11-21T10:00:00Z" level=fatal msg="cannot serve" error=EIO', 'cannot serve: EIO'],
    ['klog', 'I1121 10:00:00.123456 1 main.go:1] "Going away"', 'Going away'],
  ] as const)(
    'says why in the words of its last error, without its header: %s, %s',
    async (logFormat, line, reason) => {
      await using child = supervise({
        command: 'sh',
        args: ['-c', 'printf "%s\\n" "$0" >&2; exit 1', line],
        logFormat,
      })
      await child.supervised.start()
      const { lastFailure: failure } = await untilStatus(child.supervised, ({ state }) => state === 'backoff')
      expect(failure!.message.split('; ').slice(1)).toEqual([reason])
    },
  )

  test('says its signal', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    await child.supervised.start()
    process.kill(child.supervised.status().pid!, 'SIGKILL')
    const { lastFailure } = await untilStatus(child.supervised, ({ restarts }) => restarts === 1)
    expect(lastFailure).toMatchObject({ signal: 'SIGKILL', lastLines: [] })
    expect(lastFailure!.message).toMatch(/^child was ended by SIGKILL after/)
    expect(lastFailure).not.toHaveProperty('exitCode')
  })

  test('and answers in between says while it is ready that it may not be so for long', async () => {
    await using child = supervise(shell('exec sleep 1000'), { healthyAfterMs: 600_000 })
    const { supervised } = child
    await supervised.start()
    const reasons = []
    for (let ended = 0; ended <= 3; ended++) {
      const { pid } = await untilStatus(supervised, ({ state, restarts }) => {
        return state === 'running' && restarts === ended
      })
      supervised.markReady()
      const { state, reason } = supervised.status()
      reasons.push([state, reason])
      process.kill(pid!, 'SIGKILL')
    }
    const words = expect.stringMatching(/^it has ended 3 times in a row: child was ended by SIGKILL /)
    expect(reasons).toEqual([...Array.from({ length: 3 }, () => ['ready', undefined]), ['ready', words]])
  })

  test('seldom is as well as any', async () => {
    await using child = supervise(shell('exec sleep 1000'), { healthyAfterMs: 0 })
    const { supervised } = child
    await supervised.start()
    for (let ended = 0; ended < 5; ended++) {
      const { pid } = await untilStatus(supervised, ({ state, restarts }) => {
        return state === 'running' && restarts === ended
      })
      supervised.markReady()
      expect(supervised.status()).not.toHaveProperty('reason')
      process.kill(pid!, 'SIGKILL')
    }
  })

  test('names who holds its port', async () => {
    const server = createServer().listen({ host: '127.0.0.1', port: 0 })
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    try {
      await using child = supervise(program('listen.ts', String(port)))
      await child.supervised.start()
      const { lastFailure } = await untilStatus(child.supervised, ({ state }) => state === 'backoff')
      expect(lastFailure!.portHolders).toMatchObject([{ port, pid: process.pid }])
      expect(lastFailure!.message).toContain(`; port ${port} is held by process ${process.pid} (`)
    } finally {
      server.close()
    }
  })

  test('names who holds its port when it does not say which one it is', async () => {
    const server = createServer().listen(0)
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    try {
      await using child = supervise({
        ...shell('echo "Address already in use" >&2; exit 1'),
        ports: [1, port],
      })
      await child.supervised.start()
      const { lastFailure } = await untilStatus(child.supervised, ({ state }) => state === 'backoff')
      expect(lastFailure!.portHolders).toMatchObject([{ port, pid: process.pid }])
    } finally {
      server.close()
    }
  })
})

describe('the backoff', () => {
  test('grows with failures in a row', async () => {
    await using child = supervise(shell('exit 1'), { initialDelayMs: 2, maximumDelayMs: 16, random: () => 0 })
    await child.supervised.start()
    await untilStatus(child.supervised, ({ restarts }) => restarts === 6)
    const delays = child.records().flatMap(({ retryMs }) => retryMs ?? [])
    expect(delays.slice(0, 6)).toEqual([1, 2, 4, 8, 8, 8])
  })

  test('begins anew after a healthy time', async () => {
    await using child = supervise(shell('exit 1'), {
      initialDelayMs: 2,
      maximumDelayMs: 16,
      random: () => 0,
      healthyAfterMs: 0,
    })
    await child.supervised.start()
    await untilStatus(child.supervised, ({ restarts }) => restarts === 4)
    const delays = child.records().flatMap(({ retryMs }) => retryMs ?? [])
    expect(delays.slice(0, 4)).toEqual([1, 1, 1, 1])
  })

  test('also delays a restart that cannot be spawned', async () => {
    using directory = temporaryDirectory()
    const command = join(directory.path, 'component')
    writeFileSync(command, '#!/bin/sh\nrm "$0"; exit 1\n', { mode: 0o755 })
    await using child = supervise({ command, args: [] })
    await child.supervised.start()
    const failed = await untilStatus(
      child.supervised,
      ({ state, restarts }) => state === 'backoff' && restarts > 0,
    )
    expect(failed.lastFailure!.message).toBe(
      `child was not started: cannot start ${command}: spawn ${command} ENOENT`,
    )
    await untilStatus(child.supervised, ({ restarts }) => restarts > failed.restarts)
  })
})

describe('stop', () => {
  test('ends the process with SIGTERM and resolves when it is gone', async () => {
    using directory = temporaryDirectory()
    const script = `trap 'echo cleaned > ${directory.path}/out; exit 0' TERM; echo up; while :; do sleep 0.01; done`
    await using child = supervise(shell(script))
    await child.supervised.start()
    await until(() => child.records().some(({ msg }) => msg === 'up'))
    const { pid } = child.supervised.status()
    await child.supervised.stop(never)
    expect(readFileSync(join(directory.path, 'out'), 'utf8')).toBe('cleaned\n')
    expect(readStat(pid!)).toBeUndefined()
    expect(child.supervised.status()).toMatchObject({ state: 'stopped', restarts: 0 })
    expect(child.supervised.status()).not.toHaveProperty('lastFailure')
  })

  const stubborn = shell("trap '' TERM; echo up; exec sleep 1000")

  test('SIGKILL follows an ignored SIGTERM', async () => {
    await using child = supervise({ ...stubborn, stopTimeoutMs: 50 })
    await child.supervised.start()
    await until(() => child.records().some(({ msg }) => msg === 'up'))
    await child.supervised.stop(never)
    expect(child.records()).toContainEqual(
      expect.objectContaining({ msg: 'did not stop in time; killing it', level: 'warn' }),
    )
    expect(child.records().at(-1)).toMatchObject({ msg: 'stopped', signal: 'SIGKILL' })
  })

  test('SIGKILL follows at once when the signal fires', async () => {
    await using child = supervise(stubborn)
    await child.supervised.start()
    await until(() => child.records().some(({ msg }) => msg === 'up'))
    const patient = child.supervised.stop(never)
    await child.supervised.stop(AbortSignal.abort())
    await patient
    expect(child.records().at(-1)).toMatchObject({ msg: 'stopped', signal: 'SIGKILL' })
  })

  test('leaves what the process started', async () => {
    await using child = supervise(shell('sleep 1000 & echo "pid $!"; exec sleep 1000'))
    await child.supervised.start()
    const started = await until(() => child.records().find(({ msg }) => msg.startsWith('pid ')))
    await child.supervised.stop(never)
    const pid = Number(started.msg.slice(4))
    expect(readStat(pid)?.state).toMatch(/[SR]/)
    process.kill(pid, 'SIGKILL')
  })

  test('during a backoff ends it', async () => {
    await using child = supervise(shell('exit 1'), { initialDelayMs: 1e8, maximumDelayMs: 1e8 })
    await child.supervised.start()
    await untilStatus(child.supervised, ({ state }) => state === 'backoff')
    await child.supervised.stop(never)
    expect(child.supervised.status().state).toBe('stopped')
  })

  test('leaves nothing that keeps the daemon from its end', async () => {
    using directory = temporaryDirectory()
    const daemon = { ...program('stop-in-backoff.ts', directory.path), env: environment }
    expect(await runCommand({ ...daemon, timeoutMs: 50_000 })).toMatchObject({ stdout: 'stopped' })
  })

  test.each(Array.from({ length: 12 }, (_, turns) => turns))(
    'during a start ends it, %i turns into it',
    async (turns) => {
      await using child = supervise(shell('exec sleep 1000'))
      const startup = child.supervised.start().catch(errorCode)
      for (let turn = 0; turn < turns; turn++) await Promise.resolve()
      await child.supervised.stop(AbortSignal.abort())
      expect(child.supervised.status().state).toBe('stopped')
      expect([undefined, 'PROCESS_STOPPED']).toContain(await startup)
      const ends = child.records().filter(({ msg }) => msg === 'stopped')
      expect(ends.filter(({ signal }) => signal !== 'SIGKILL')).toEqual([])
    },
  )

  test('is legal before a start and after a stop', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    await child.supervised.stop(never)
    expect(child.supervised.status().state).toBe('idle')
    await child.supervised.start()
    await Promise.all([child.supervised.stop(never), child.supervised.stop(never)])
    await child.supervised.stop(never)
    expect(child.supervised.status().state).toBe('stopped')
  })
})

describe('who waits', () => {
  test('hears each change until he listens no more', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    const states: string[] = []
    const subscription = child.supervised.onChange(({ state }) => states.push(state))
    await child.supervised.start()
    child.supervised.markReady()
    child.supervised.markReady()
    subscription[Symbol.dispose]()
    await child.supervised.stop(never)
    expect(states).toEqual(['starting', 'running', 'ready'])
  })

  test('cannot break the supervision', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    child.supervised.onChange(() => {
      throw new Error('a bug of a listener')
    })
    await child.supervised.start()
    expect(child.records()).toContainEqual(expect.objectContaining({ error: 'a bug of a listener' }))
  })
})

describe('a process that does not answer', () => {
  test('is shown so, with the reason, until it does', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    await child.supervised.start()
    child.supervised.markReady()
    child.supervised.markUnresponsive('no answer')
    expect(child.supervised.status()).toMatchObject({ state: 'unresponsive', reason: 'no answer' })
    child.supervised.markNotReady('not yet')
    expect(child.supervised.status()).toMatchObject({ state: 'running', reason: 'not yet' })
    child.supervised.markReady()
    expect(child.supervised.status()).not.toHaveProperty('reason')
  })

  test('is killed, also when it is stopped, and started again', async () => {
    await using child = supervise(shell('kill -STOP $$; exec sleep 1000'))
    await child.supervised.start()
    const { pid } = child.supervised.status()
    await until(() => readStat(pid!)?.state === 'T')
    child.supervised.markUnresponsive('no answer')
    child.supervised.killUnresponsive('no answer for 60 s')
    const { lastFailure } = await untilStatus(child.supervised, ({ restarts }) => restarts === 1)
    expect(lastFailure?.message).toMatch(/^child was ended by SIGKILL after .*; no answer for 60 s$/)
    expect(child.supervised.status()).not.toHaveProperty('reason')
  })

  test('is not killed once it answers, or before it was told to be silent', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    await child.supervised.start()
    child.supervised.killUnresponsive('no answer')
    child.supervised.markUnresponsive('no answer')
    child.supervised.markReady()
    child.supervised.killUnresponsive('no answer')
    await new Promise(setImmediate)
    expect(child.supervised.status()).toMatchObject({ state: 'ready', restarts: 0 })
    expect(child.records().map(({ msg }) => msg)).not.toContain('does not answer; killing it')
  })

  test('can be stopped while it is being killed', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    await child.supervised.start()
    child.supervised.markUnresponsive('no answer')
    child.supervised.killUnresponsive('no answer')
    await child.supervised.stop(never)
    expect(child.supervised.status()).toMatchObject({ state: 'stopped', restarts: 0 })
  })

  test('what is marked of one that does not run says nothing', async () => {
    await using child = supervise(shell('exec sleep 1000'))
    child.supervised.markUnresponsive('no answer')
    expect(child.supervised.status()).toMatchObject({ state: 'idle' })
    expect(child.supervised.status()).not.toHaveProperty('reason')
  })
})

test('the environment is that of the spec with the marks', async () => {
  const script = 'env | grep -v -E "^(PWD|OLDPWD|SHLVL|_|NODE_V8_COVERAGE)=" | sort; exec sleep 1000'
  await using child = supervise({ ...shell(script), env: { ...environment, A: '1' } })
  await child.supervised.start()
  const lines = await until(() => {
    const messages = child.records().map(({ msg }) => msg)
    return messages.some((msg) => msg.startsWith('PATH=')) && messages.filter((msg) => msg.includes('='))
  })
  expect(lines).toEqual([
    'A=1',
    'K8S_COMPONENT=child',
    `K8S_RECORD_DIR=${child.recordDir}`,
    `K8S_SUPERVISOR=${process.pid}:${readStat(process.pid)?.startTicks}`,
    `PATH=${environment.PATH}`,
  ])
})

test('a child that prints more than is logged never waits for its reader', async () => {
  await using child = supervise(shell('seq 300000; exit 7'), { initialDelayMs: 1e8, maximumDelayMs: 1e8 })
  await child.supervised.start()
  const { lastFailure: failure } = await untilStatus(child.supervised, ({ state }) => state === 'backoff')
  expect(failure!.lastLines.at(-1)).toBe('300000')
  const leftOut = child.records().flatMap(({ records }) => Number(records ?? []))
  expect(leftOut.reduce((sum, count) => sum + count)).toBeGreaterThan(200_000)
})
