import { ChildProcess } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { setOomScore } from '../../../src/base/oom-score.ts'
import { runCommand, spawnPiped, spawnProcess } from '../../../src/supervisor/spawn.ts'
import { environment as env, program, shell, temporaryDirectory } from './support.ts'

function spawn(script: string, extra: { env?: Record<string, string>; cwd?: string } = {}) {
  let output = ''
  const onStdout = (chunk: Buffer) => (output += chunk.toString())
  const running = spawnProcess({ ...shell(script), env, ...extra }, { onStdout, onStderr: onStdout })
  return { running, output: () => output }
}

async function outputOf(script: string, extra = {}): Promise<string> {
  const { running, output } = spawn(script, extra)
  await (await running).exited
  return output()
}

describe('a process', () => {
  test('has the given environment and nothing of ours', async () => {
    process.env['K8S_SUPERVISOR_TEST'] = 'ours'
    const names = (await outputOf('env', { env: { PATH: env.PATH, MARK: 'a b' } })).trim().split('\n')
    // The shell itself sets these, and Node gives its coverage on to whatever it starts.
    const own = names.filter((line) => !/^(PWD|OLDPWD|SHLVL|_|NODE_V8_COVERAGE)=/.test(line))
    expect(own.toSorted()).toEqual(['MARK=a b', `PATH=${env.PATH}`])
  })

  test('leads a session of its own and has its input closed', async () => {
    const [pid, session, input] = (
      await outputOf('echo $$; cut -d" " -f6 /proc/$$/stat; readlink /proc/$$/fd/0')
    ).split('\n')
    expect(session).toBe(pid)
    expect(input).toBe('/dev/null')
  })

  test('has the OOM score that it is given, and its own where the kernel refuses that', async () => {
    const score = (pid: number) => Number(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8'))
    const output = { onStdout: () => {}, onStderr: () => {} }
    const start = (oomScore: number) => spawnProcess({ ...shell('exec sleep 1000'), env, oomScore }, output)
    const [raised, lowered] = [await start(700), await start(-999)]
    const isPrivileged = setOomScore(lowered.pid, -999)
    expect(score(raised.pid)).toBe(700)
    expect(score(lowered.pid)).toBe(isPrivileged ? -999 : score(process.pid))
    for (const { kill, exited } of [raised, lowered]) {
      kill('SIGKILL')
      await exited
    }
  })

  test('has no file of ours open', async () => {
    const file = openSync(import.meta.filename, 'r')
    try {
      expect((await outputOf('ls /proc/$$/fd')).trim().split('\n')).not.toContain(String(file))
    } finally {
      closeSync(file)
    }
  })

  test.each([
    ['exit 7', { code: 7, signal: null }],
    ['kill -KILL $$', { code: null, signal: 'SIGKILL' }],
  ])('%s', async (script, exit) => {
    expect(await (await spawn(script).running).exited).toMatchObject(exit)
  })

  test('delivers what it printed before it ended', async () => {
    const output = await outputOf('i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done; exit 1')
    expect(output).toMatch(/line 0\n[^]*line 19999\n$/)
  })

  test('is gone even when a child of its own keeps its output open', async () => {
    const { running, output } = spawn('sleep 1000 & echo $!')
    expect(await (await running).exited).toMatchObject({ code: 0 })
    process.kill(Number(output()), 'SIGKILL')
  })

  test('cannot be signalled once it is gone', async () => {
    const running = await spawn('exit 0').running
    await running.exited
    expect(() => running.kill('SIGKILL')).not.toThrow()
  })
})

describe('what cannot be started says what and why', () => {
  test.each([
    [{ command: '/nowhere/kubelet', args: [] }, 'cannot start /nowhere/kubelet', 'ENOENT'],
    [{ command: import.meta.filename, args: [] }, `cannot start ${import.meta.filename}`, 'EACCES'],
    [{ ...shell('true'), cwd: '/nowhere' }, 'cannot start sh in /nowhere', 'ENOENT'],
  ])('%j', async (command, message, cause) => {
    const output = { onStdout: () => {}, onStderr: () => {} }
    await expect(spawnProcess({ env, ...command }, output)).rejects.toMatchObject({
      message,
      code: 'SPAWN_FAILED',
      cause: { code: cause },
    })
  })
})

describe('a command', () => {
  const timeoutMs = 60_000

  test('gives its output', async () => {
    const result = await runCommand({ ...shell('cat; echo problem >&2'), env, timeoutMs, input: 'typed' })
    expect(result).toEqual({ exitCode: 0, stdout: 'typed', stderr: 'problem\n' })
  })

  test('has the OOM score that its user has, where that is not the lower one of a daemon', async () => {
    const before = readFileSync('/proc/self/oom_score_adj', 'utf8').trim()
    onTestFinished(() => void setOomScore(process.pid, Number(before)))
    expect(setOomScore(process.pid, 500)).toBe(true)
    // It begins once it is given its input, and so when it has its score.
    const script = 'read -r word; cat /proc/$$/oom_score_adj'
    const { stdout } = await runCommand({ ...shell(script), env, timeoutMs, input: 'go\n' })
    expect(stdout).toBe('500\n')
  })

  test('that ends before it read its input is no failure', async () => {
    const input = 'x'.repeat(10_000_000)
    expect(await runCommand({ ...shell('exit 0'), env, timeoutMs, input })).toMatchObject({ exitCode: 0 })
  })

  test('that fails is an error with its code and what it printed', async () => {
    await expect(
      runCommand({ ...shell('echo no such chain >&2; exit 3'), env, timeoutMs }),
    ).rejects.toMatchObject({
      message: 'cannot run sh -c echo no such chain >&2; exit 3: exited with code 3: no such chain',
      code: 'COMMAND_FAILED',
      fields: { exitCode: 3 },
    })
  })

  test('may have more codes that are answers', async () => {
    const result = await runCommand({ ...shell('exit 1'), env, timeoutMs, acceptedExitCodes: [1] })
    expect(result.exitCode).toBe(1)
  })

  test('that takes too long is killed', async () => {
    await expect(runCommand({ ...shell('exec sleep 1000'), env, timeoutMs: 50 })).rejects.toMatchObject({
      message: 'cannot run sh -c exec sleep 1000: it took longer than 50 ms',
      code: 'COMMAND_TIMEOUT',
    })
  })

  test('is killed when its signal fires', async () => {
    const controller = new AbortController()
    const ended = runCommand({ ...shell('exec sleep 1000'), env, timeoutMs, signal: controller.signal })
    controller.abort(new Error('not wanted any more'))
    await expect(ended).rejects.toThrow('not wanted any more')
  })

  /** Signals without effect stand for a system call that hangs; what was started ends with the test. */
  function withoutEffect(): void {
    const spy = vi.spyOn(ChildProcess.prototype, 'kill').mockReturnValue(true)
    onTestFinished(() => {
      const stuck = spy.mock.contexts as ChildProcess[]
      spy.mockRestore()
      for (const child of stuck) child.kill('SIGKILL')
    })
  }

  test('that even SIGKILL does not end is left behind', async () => {
    withoutEffect()
    const sleeping = { ...shell('exec sleep 1000'), env, killedLimitMs: 10 }
    await expect(runCommand({ ...sleeping, timeoutMs: 50 })).rejects.toMatchObject({
      message: 'cannot end sh -c exec sleep 1000: it is still there after SIGKILL',
      code: 'COMMAND_STUCK',
    })
    const controller = new AbortController()
    const ended = runCommand({ ...sleeping, timeoutMs, signal: controller.signal })
    controller.abort(new Error('not wanted any more'))
    await expect(ended).rejects.toThrow('not wanted any more')
  })

  test('that data is piped through is left behind, too', async () => {
    withoutEffect()
    const { kill, finished } = await spawnPiped({ ...shell('exec sleep 1000'), env })
    kill()
    await expect(finished).rejects.toMatchObject({ code: 'COMMAND_STUCK' })
  })

  test('that was killed by another hand says so', async () => {
    await expect(runCommand({ ...shell('kill -KILL $$'), env, timeoutMs })).rejects.toMatchObject({
      code: 'COMMAND_FAILED',
      fields: { signal: 'SIGKILL' },
    })
  })

  test('cannot fill the memory with its output', async () => {
    using directory = temporaryDirectory()
    const script = 'head -c 6000000 /dev/zero | tr "\\0" x'
    const { stdout } = await runCommand({ ...shell(script), env, timeoutMs, cwd: directory.path })
    expect(stdout).toHaveLength(4 * 1024 * 1024)
  })

  test('runs a fixture under the pinned Node', async () => {
    await expect(runCommand({ ...program('listen.ts', '-1'), env, timeoutMs })).rejects.toThrow(
      /exited with code 1/,
    )
  })
})
