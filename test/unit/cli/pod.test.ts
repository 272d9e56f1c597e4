import { describe, expect, test } from 'vitest'
import { findPod } from '../../../src/cli/pod/kubelet.ts'
import { renderPods } from '../../../src/cli/pod/list.ts'
import { exitCodeOf } from '../../../src/client/exec.ts'
import type { Pod } from '../../../src/cluster/kubelet/rejections.ts'

const now = Date.parse('2026-11-26T12:00:00Z')

function pod(name: string, status: Pod['status'] = {}): Pod {
  return {
    metadata: { name: `${name}-one`, namespace: 'default' },
    spec: { nodeName: 'one', containers: [{ name: 'web' }] },
    status: { startTime: '2026-11-26T11:59:00Z', ...status },
  }
}

test('pods are listed with what their containers do', () => {
  const running = { name: 'web', ready: true, restartCount: 2, state: { running: {} } }
  const waiting = {
    name: 'web',
    ready: false,
    restartCount: 0,
    state: { waiting: { reason: 'ErrImagePull' } },
  }
  const text = renderPods(
    [
      pod('web', { phase: 'Running', podIP: '10.244.0.2', containerStatuses: [running] }),
      pod('gone', { phase: 'Pending', containerStatuses: [waiting] }),
      pod('refused', { phase: 'Failed', reason: 'NodeAffinity' }),
    ],
    now,
  )
  expect(text).toBe(`NAMESPACE   NAME          STATE          READY   RESTARTS   IP           AGE
default     web-one       Running        1/1     2          10.244.0.2   60s
default     gone-one      ErrImagePull   0/1     0          -            60s
default     refused-one   NodeAffinity   0/1     0          -            60s
`)
})

test('a pod is found by its name, and by that in its file', () => {
  const pods = [pod('web'), pod('web-one')]
  const named = (name: string, namespace = 'default') => findPod(pods, { namespace, name })?.metadata?.name
  expect([named('web-one'), named('web'), named('web-one-one'), named('we'), named('web', 'other')]).toEqual([
    'web-one',
    'web-one',
    'web-one-one',
    undefined,
    undefined,
  ])
})

describe('the end of a command', () => {
  test.each([
    [{ status: 'Success' }, 0],
    [
      {
        status: 'Failure',
        reason: 'NonZeroExitCode',
        details: { causes: [{ reason: 'ExitCode', message: '7' }] },
      },
      7,
    ],
  ])('%j is the exit code %d', (status, code) => {
    expect(exitCodeOf(status)).toBe(code)
  })

  test('that is none says why', () => {
    expect(() => exitCodeOf({ status: 'Failure', message: 'no such file' })).toThrow(
      'cannot run the command: no such file',
    )
    expect(() => exitCodeOf(undefined)).toThrow('the connection ended before the command')
  })
})
