import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { vi } from 'vitest'
import { createLoggerTo, type Logger } from '../../../src/base/logger.ts'
import {
  type ProcessSpec,
  type ProcessStatus,
  SupervisedProcess,
} from '../../../src/supervisor/supervised-process.ts'
import type { Backoff } from '../../../src/supervisor/backoff.ts'

/** Only a hang ends a test: what takes how long on a busy machine is no answer. */
vi.setConfig({ testTimeout: 60_000 })

/** A directory that goes with the test. */
export function temporaryDirectory(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), 'k8s-supervisor-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

export type LogRecord = Record<string, unknown> & { readonly msg: string; readonly level: string }

/** The daemon's own logger, with its records to read. */
export function recordingLogger(): { log: Logger; records: () => LogRecord[] } {
  const lines: string[] = []
  const log = createLoggerTo((line) => void lines.push(line), { format: 'json', level: 'trace' })
  return { log, records: () => lines.map((line) => JSON.parse(line) as LogRecord) }
}

export const environment = { PATH: process.env['PATH'] ?? '/usr/bin:/bin' }

export function fixture(name: string): string {
  return resolve(import.meta.dirname, '../../fixtures', name)
}

/** What runs a shell script or a fixture program under the pinned Node. */
export const shell = (script: string) => ({ command: 'sh', args: ['-c', script] })
export const program = (name: string, ...args: string[]) => ({
  command: process.execPath,
  args: [fixture(name), ...args],
})

/** A supervised process with its log, ended with the test. */
export function supervise(
  spec: Pick<ProcessSpec, 'command' | 'args'> & Partial<ProcessSpec>,
  backoff: Partial<Backoff> = {},
) {
  const directory = temporaryDirectory()
  const logger = recordingLogger()
  const recordDir = join(directory.path, 'processes')
  const defaults = {
    name: 'child',
    env: environment,
    logFormat: 'plain',
    stopTimeoutMs: 60_000,
    recordDir,
  } as const
  const supervised = new SupervisedProcess(
    { ...defaults, ...spec },
    { log: logger.log, backoff: { initialDelayMs: 1, maximumDelayMs: 1, ...backoff } },
  )
  return {
    supervised,
    recordDir: spec.recordDir ?? recordDir,
    records: logger.records,
    [Symbol.asyncDispose]: async () => {
      await supervised.stop(AbortSignal.abort())
      directory[Symbol.dispose]()
    },
  }
}

/** Resolves with the first status that satisfies the condition, now or later. */
export function untilStatus(
  supervised: SupervisedProcess,
  condition: (status: ProcessStatus) => boolean,
): Promise<ProcessStatus> {
  return new Promise((fulfil) => {
    const look = (status: ProcessStatus) => {
      if (!condition(status)) return
      subscription[Symbol.dispose]()
      fulfil(status)
    }
    const subscription = supervised.onChange(look)
    look(supervised.status())
  })
}

/** Looks again and again until the answer is neither undefined nor false; the test's own limit ends it. */
export async function until<T>(look: () => T | undefined | false): Promise<T> {
  for (;;) {
    const answer = look()
    if (answer !== undefined && answer !== false) return answer
    await new Promise((fulfil) => setTimeout(fulfil, 10))
  }
}
