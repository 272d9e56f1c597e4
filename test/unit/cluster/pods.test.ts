import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempDisposableSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { removePods, stopPods } from '../../../src/cluster/pods.ts'
import type { Payload } from '../../../src/payload/payload.ts'

/** `script` stands in place of crictl. */
function given(script: string) {
  const directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-pods-'))
  onTestFinished(() => directory.remove())
  const crictl = join(directory.path, 'crictl')
  writeFileSync(crictl, `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  const payload = { binDir: '/usr/bin:/bin', bin: () => crictl } as unknown as Payload
  return {
    ...{ payload, log: silentLogger, isOwnRuntime: true },
    runtimeSocket: join(directory.path, 'containerd.sock'),
  }
}

test('a stop that is hurried says that the pods run on', async () => {
  const refusal = {
    code: 'PODS_REMAIN',
    message: 'cannot end the pods: the stop was hurried, and they run on',
  }
  const hurry = new AbortController()
  const stopped = stopPods({ ...given('exec sleep 1000'), signal: hurry.signal })
  hurry.abort()
  await expect(stopped).rejects.toMatchObject(refusal)
  await expect(stopPods({ ...given('exit 0'), signal: hurry.signal })).rejects.toMatchObject(refusal)
})

test('a runtime that refuses is told with its words', async () => {
  const { signal } = new AbortController()
  const stopped = stopPods({ ...given('echo "no such socket" >&2; exit 1'), signal })
  await expect(stopped).rejects.toThrow('no such socket')
})

test('a pod that containerd was about to start or to end does not outlive the stop', async () => {
  const { signal } = new AbortController()
  const options = given(
    [
      'case "$*" in',
      // The sandbox is in no list of ready ones.
      '*" pods --quiet") echo half-made ;;',
      '*" stopp half-made") kill "$(cat "${0%/*}/half-made.pid")" ;;',
      `*" ps "*) echo '{"containers":[]}' ;;`,
      'esac',
    ].join('\n'),
  )
  const socket = options.runtimeSocket
  writeFileSync(socket, '')
  const [halfMade, unknown] = [shimAt(socket), shimAt(socket)]
  const ended = [halfMade, unknown].map(async (shim) => once(shim, 'exit'))
  writeFileSync(`${join(socket, '..')}/half-made.pid`, String(halfMade.pid))
  await stopPods({ ...options, signal })
  expect(await Promise.all(ended)).toEqual([
    [null, 'SIGTERM'],
    [null, 'SIGKILL'],
  ])
})

test('what a runtime of others has beside pods is left alone, and its pods are removed at a reset', async () => {
  const { signal } = new AbortController()
  const options = {
    ...given(
      [
        'echo "$*" >>"${0%/*}/calls"',
        'case "$*" in',
        '*" pods "*) echo one ;;',
        `*" ps "*) echo '{"containers":[]}' ;;`,
        'esac',
      ].join('\n'),
    ),
    isOwnRuntime: false,
  }
  writeFileSync(options.runtimeSocket, '')
  const theirs = shimAt(options.runtimeSocket)
  await removePods({ ...options, signal })
  expect(theirs.exitCode ?? theirs.signalCode).toBeNull()
  const calls = readFileSync(join(options.runtimeSocket, '..', 'calls'), 'utf8')
  expect(calls).toMatch(/ stopp one\n[^]* rmp --all --force\n$/)
})

/** A process that looks like a shim of this containerd. */
function shimAt(socket: string) {
  const shim = spawn('bash', ['-c', 'read', 'shim', '-address', socket], {
    argv0: '/payload/bin/containerd-shim-runc-v2',
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  onTestFinished(() => void shim.kill('SIGKILL'))
  return shim
}
