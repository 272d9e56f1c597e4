import { closeSync, mkdtempDisposableSync, openSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createNotifier } from '../../../src/base/notify.ts'

test('the service manager is told in its own words, one line each', () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-notify-'))
  const path = join(directory.path, 'told')
  const fd = openSync(path, 'w')
  const notify = createNotifier({ K8S_NOTIFY_FD: String(fd) })
  notify.status('kubelet is ready\nREADY=1 ')
  notify.ready()
  notify.stopping()
  notify.watchdog()
  closeSync(fd)
  expect(readFileSync(path, 'utf8')).toBe('STATUS=kubelet is ready READY=1 READY=1STOPPING=1WATCHDOG=1')
})

test.each([undefined, '', 'socket', '999999'])(
  'with %j for a socket nobody is told, and nothing fails',
  (fd) => {
    const notify = createNotifier({ K8S_NOTIFY_FD: fd })
    expect(() => notify.ready()).not.toThrow()
  },
)

test.each([
  [{ K8S_NOTIFY_FD: '5', WATCHDOG_USEC: '60000000' }, 60_000],
  [{ K8S_NOTIFY_FD: '5', WATCHDOG_USEC: '60000000', WATCHDOG_PID: String(process.pid) }, 60_000],
  [{ K8S_NOTIFY_FD: '5', WATCHDOG_USEC: '60000000', WATCHDOG_PID: '1' }, undefined],
  [{ WATCHDOG_USEC: '60000000' }, undefined],
  [{ K8S_NOTIFY_FD: '5' }, undefined],
])('the watchdog of %j waits for %j ms', (environment, watchdogMs) => {
  expect(createNotifier(environment).watchdogMs).toBe(watchdogMs)
})
