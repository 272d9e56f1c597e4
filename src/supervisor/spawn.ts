/*
 * The only file that starts processes.
 *
 * node:child_process instead of execa: importing execa 10.2 under Node 26.10 takes 80-115 ms and
 * 14 MB from node_modules, 20-25 ms and 2.6 MB as a part of the bundle, in a daemon whose time to
 * Ready and memory are headline figures; what it adds (pipes between commands, templates, verbose
 * output) is not used here.
 */
import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { constants } from 'node:os'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '../base/errors.ts'
import { privateMode } from '../base/files.ts'
import { commandOomScore, setOomScore } from '../base/oom-score.ts'

/** How long the output of a process that has ended is awaited: a child of its own may hold the pipe open. */
const drainLimitMs = 250

/** How long a process is awaited after SIGKILL: one that hangs in a system call may never end. */
const defaultKilledLimitMs = 5_000

/** What a shell adds to the number of a signal that ended a command. */
const signalExitBase = 128

/** The bytes of each output stream that runCommand keeps. */
const commandOutputLimit = 4 * 1024 * 1024

export interface ProcessCommand {
  readonly command: string
  readonly args: readonly string[]
  /** The whole environment: nothing of the daemon's own is passed on. */
  readonly env: Readonly<Record<string, string>>
  readonly cwd?: string
  /** See base/oom-score.ts; where the kernel refuses it, and by default, the daemon's own. */
  readonly oomScore?: number
}

/** Exactly one of code and signal is set. */
export interface ProcessExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly uptimeMs: number
}

export interface RunningProcess {
  readonly pid: number
  /** Settled when the process is gone and its output was delivered; never rejects. */
  readonly exited: Promise<ProcessExit>
  /** Does nothing once the process is gone, so that its pid's next owner is never hit. */
  readonly kill: (signal: NodeJS.Signals) => void
}

interface OutputHandlers {
  readonly onStdout: (chunk: Buffer) => void
  readonly onStderr: (chunk: Buffer) => void
}

/**
 * Starts a process in a session of its own, so that a terminal's Ctrl-C reaches the daemon alone,
 * with its standard input closed. Resolves when it was spawned; rejects with SPAWN_FAILED.
 */
export async function spawnProcess(command: ProcessCommand, output: OutputHandlers): Promise<RunningProcess> {
  return (await spawnChild(command, output)).running
}

/** Its OOM score is that of a command. */
interface CommandOptions extends Omit<ProcessCommand, 'oomScore'> {
  /** Written to its standard input, which is closed otherwise. */
  readonly input?: string
  /** Ended with SIGKILL after that. */
  readonly timeoutMs: number
  /** Ended with SIGKILL when it fires. */
  readonly signal?: AbortSignal
  /** Codes beside 0 that are answers, not failures. */
  readonly acceptedExitCodes?: readonly number[]
  /** What differs from the time that is waited after SIGKILL. */
  readonly killedLimitMs?: number
}

interface CommandResult {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

/**
 * Runs a short-lived command to its end. Rejects with SPAWN_FAILED, COMMAND_FAILED (its exit code or
 * signal and the end of its standard error are in the message), COMMAND_TIMEOUT, or COMMAND_STUCK: it is left behind.
 */
export async function runCommand(options: CommandOptions): Promise<CommandResult> {
  const { command, args, input, timeoutMs, signal, acceptedExitCodes = [], killedLimitMs } = options
  signal?.throwIfAborted()
  const stdout = new OutputBuffer()
  const stderr = new OutputBuffer()
  const handlers = { onStdout: stdout.push, onStderr: stderr.push }
  const own = { ...options, oomScore: commandOomScore() }
  const { running, child } = await spawnChild(own, handlers, input !== undefined)
  // A command may end without reading all of its input.
  child.stdin?.on('error', () => {})
  child.stdin?.end(input)

  const timeout = AbortSignal.timeout(timeoutMs)
  const ended = AbortSignal.any(signal === undefined ? [timeout] : [timeout, signal])
  const stuck = Promise.withResolvers<undefined>()
  const kill = () => killWithin(child, { limitMs: killedLimitMs, onStuck: () => stuck.resolve(undefined) })
  if (ended.aborted) kill()
  ended.addEventListener('abort', kill)
  const exit = await Promise.race([running.exited, stuck.promise])
  ended.removeEventListener('abort', kill)

  const commandLine = [command, ...args].join(' ')
  if (exit === undefined) {
    signal?.throwIfAborted()
    throw stuckError(commandLine)
  }
  if (exit.signal === 'SIGKILL') signal?.throwIfAborted()
  if (exit.signal === 'SIGKILL' && timeout.aborted) {
    throw new AppError(`cannot run ${commandLine}: it took longer than ${timeoutMs} ms`, {
      code: 'COMMAND_TIMEOUT',
      command,
    })
  }
  if (exit.code === null || (exit.code !== 0 && !acceptedExitCodes.includes(exit.code))) {
    const reason = stderr.text().trim().slice(-2_000) || stdout.text().trim().slice(-2_000)
    throw new AppError(`cannot run ${commandLine}: ${describeExit(exit)}${reason && `: ${reason}`}`, {
      code: 'COMMAND_FAILED',
      command,
      exitCode: exit.code ?? undefined,
      signal: exit.signal ?? undefined,
    })
  }
  return { exitCode: exit.code, stdout: stdout.text(), stderr: stderr.text() }
}

/** A program that data is piped through. */
export interface PipedProcess {
  readonly stdin: Writable
  readonly stdout: Readable
  /** Rejects, once the program is gone or was killed in vain, with the end of what it said when it did not exit with 0. */
  readonly finished: Promise<void>
  readonly kill: () => void
}

/** Starts a program whose input and output are streams of any length. Rejects with SPAWN_FAILED. */
export async function spawnPiped({ command, args, env }: ProcessCommand): Promise<PipedProcess> {
  const child = spawn(command, args, { env: { ...env }, detached: true, stdio: ['pipe', 'pipe', 'pipe'] })
  const complaints = new OutputBuffer()
  child.stderr.on('data', complaints.push)
  // Whoever writes on learns from `finished` why nobody reads any more.
  child.stdin.on('error', () => {})
  // Not 'close', which waits for somebody to read all of the output.
  const told = once(child.stderr, 'close')
  const stuck = Promise.withResolvers<never>()
  const exited = once(child, 'exit').then(async ([code, signal]) => {
    if (code === 0) return
    await told
    const reason = complaints.text().trim().slice(-2_000) || describeExit({ code, signal })
    throw new AppError(reason, { code: 'COMMAND_FAILED', command, exitCode: code ?? undefined })
  })
  const finished = Promise.race([exited, stuck.promise])
  // It may fail before anybody waits for it.
  finished.catch(() => {})
  await untilSpawned(child, command, undefined)
  setOomScore(child.pid!, commandOomScore())
  const kill = () => killWithin(child, { onStuck: () => stuck.reject(stuckError(command)) })
  return { stdin: child.stdin, stdout: child.stdout, finished, kill }
}

/**
 * Starts a process that outlives this one, in a session of its own, with its output in a file. Resolves with its pid;
 * rejects with SPAWN_FAILED.
 */
export async function spawnDetached(
  { command, args, env }: ProcessCommand,
  outputFile: string,
): Promise<number> {
  const output = openSync(outputFile, 'a', privateMode)
  try {
    const child = spawn(command, args, { env: { ...env }, detached: true, stdio: ['ignore', output, output] })
    await untilSpawned(child, command, undefined)
    child.unref()
    return child.pid!
  } finally {
    closeSync(output)
  }
}

/** Runs a command with the input and output of this process; returns its exit code as a shell does. */
export async function runInForeground({ command, args, env }: ProcessCommand): Promise<number> {
  const child = spawn(command, args, { env: { ...env }, stdio: 'inherit' })
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  await untilSpawned(child, command, undefined)
  const [code, signal] = await ended
  return code ?? signalExitBase + constants.signals[signal!]
}

/** Ends a process at once; one that is still there after the limit is let go of. */
function killWithin(
  child: ChildProcess,
  { limitMs = defaultKilledLimitMs, onStuck }: { limitMs?: number | undefined; onStuck: () => void },
): void {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  const limit = setTimeout(() => {
    // Nothing of it keeps this process from its own end.
    child.unref()
    for (const stream of child.stdio) stream?.destroy()
    onStuck()
  }, limitMs)
  child.once('exit', () => clearTimeout(limit))
}

function stuckError(commandLine: string): AppError {
  return new AppError(`cannot end ${commandLine}: it is still there after SIGKILL`, {
    code: 'COMMAND_STUCK',
    remedy: 'it hangs in a system call, as on a disk that does not answer: look at its disks, or reboot',
  })
}

/** "exited with code 1" or "was ended by SIGKILL" */
export function describeExit({ code, signal }: Pick<ProcessExit, 'code' | 'signal'>): string {
  return signal === null ? `exited with code ${code}` : `was ended by ${signal}`
}

type Child = ChildProcessByStdio<Writable | null, Readable, Readable>

async function spawnChild(
  { command, args, env, cwd, oomScore }: ProcessCommand,
  { onStdout, onStderr }: OutputHandlers,
  hasInput = false,
): Promise<{ running: RunningProcess; child: Child }> {
  const child = spawn(command, args, {
    env: { ...env },
    ...(cwd !== undefined && { cwd }),
    detached: true,
    stdio: [hasInput ? 'pipe' : 'ignore', 'pipe', 'pipe'],
  }) as Child
  const startedAtMs = performance.now()
  child.stdout.on('data', onStdout)
  child.stderr.on('data', onStderr)
  const exited = untilExited(child, startedAtMs)
  await untilSpawned(child, command, cwd)
  if (oomScore !== undefined) setOomScore(child.pid!, oomScore)
  const kill = (signal: NodeJS.Signals) => void child.kill(signal)
  return { running: { pid: child.pid!, exited, kill }, child }
}

function untilSpawned(child: ChildProcess, command: string, cwd: string | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('spawn', resolve)
    // Stays: an error after the spawn (a signal that could not be sent) must not end the daemon.
    child.on('error', (cause) => {
      const place = cwd === undefined ? '' : ` in ${cwd}`
      reject(
        new AppError(`cannot start ${command}${place}`, { code: 'SPAWN_FAILED', command, cwd }, { cause }),
      )
    })
  })
}

async function untilExited(child: Child, startedAtMs: number): Promise<ProcessExit> {
  const closed = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const exit = await new Promise<ProcessExit>((resolve) =>
    child.once('exit', (code, signal) =>
      resolve({ code, signal, uptimeMs: performance.now() - startedAtMs }),
    ),
  )
  const limit = new AbortController()
  await Promise.race([closed, delay(drainLimitMs, undefined, { signal: limit.signal }).catch(() => {})])
  limit.abort()
  child.stdout.destroy()
  child.stderr.destroy()
  return exit
}

class OutputBuffer {
  readonly #chunks: Buffer[] = []
  #length = 0

  readonly push = (chunk: Buffer): void => {
    const kept = chunk.subarray(0, commandOutputLimit - this.#length)
    if (kept.length > 0) this.#chunks.push(kept)
    this.#length += kept.length
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString('utf8')
  }
}
