import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { vi } from 'vitest'
import type { DaemonStatus } from '../../../src/control/messages.ts'

/** Only a hang ends a test: what takes how long on a busy machine is no answer. */
vi.setConfig({ testTimeout: 60_000 })

/** A directory that goes with the test. */
export function temporaryDirectory(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), 'k8s-control-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

export const daemonStatus: DaemonStatus = {
  version: 'v1.37.1+k8s.1',
  startedAt: '2026-11-21T10:00:00.000Z',
  nodeName: 'node',
  role: 'server',
  nodeReady: false,
  state: 'ready',
  problems: [],
  parts: [],
  payloads: [],
  components: [
    {
      name: 'datastore',
      state: 'ready',
      restarts: 0,
      since: '2026-11-21T10:00:00.000Z',
      needs: [],
      memoryBytes: 1_000_000,
      cpuMillicores: 3,
    },
    {
      name: 'kube-apiserver',
      state: 'backoff',
      restarts: 3,
      since: '2026-11-21T10:00:01.000Z',
      needs: ['datastore'],
      lastFailure: {
        at: '2026-11-21T10:00:01.000Z',
        message: 'kube-apiserver exited with code 1 after 2.0 s',
        exitCode: 1,
        lastLines: ['Error: no such file'],
      },
      memoryBytes: null,
      cpuMillicores: null,
    },
  ],
}

export interface TestDaemon extends AsyncDisposable {
  readonly child: ChildProcess
  readonly output: () => string
  /** Resolves when the text is within its output. */
  readonly untilOutput: (text: string) => Promise<void>
}

/** A daemon as a process of its own, which serves the socket by now; ended with the test. */
export async function startDaemon(...args: string[]): Promise<TestDaemon> {
  const fixture = resolve(import.meta.dirname, '../../fixtures/serve-control.ts')
  const child = spawn(process.execPath, [fixture, ...args])
  let output = ''
  child.stdout.on('data', (chunk) => (output += String(chunk)))
  const untilOutput = async (text: string) => {
    while (!output.includes(text)) await once(child.stdout, 'data')
  }
  await untilOutput('serving\n')
  return {
    child,
    output: () => output,
    untilOutput,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  }
}

/** Sends bytes as they are and returns all that comes back until the other side closes. */
export async function sendRaw(path: string, bytes: string): Promise<string> {
  const socket = connect(path)
  let answer = ''
  socket.on('data', (chunk) => (answer += chunk.toString()))
  // A connection that is turned away is reset.
  socket.on('error', () => {})
  socket.write(bytes)
  await new Promise((fulfil) => socket.on('close', fulfil))
  return answer
}
