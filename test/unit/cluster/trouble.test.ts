import { expect, test } from 'vitest'
import { AppError } from '../../../src/base/errors.ts'
import { Board } from '../../../src/cluster/condition.ts'
import type { Component } from '../../../src/components/component.ts'
import { Trouble } from '../../../src/cluster/trouble.ts'
import type { Logger } from '../../../src/base/logger.ts'

function trouble() {
  const board = new Board()
  const told: string[] = []
  const log = {
    error: ({ reason }: { reason: string }, message: string) => told.push(`${message}: ${reason}`),
    info: (message: string) => told.push(message),
  } as unknown as Logger
  const tried = new Trouble({ name: 'snapshots', purpose: 'take a snapshot', board, log })
  const end = new AbortController()
  const attempt = (error?: Error) =>
    tried.attempt(() => (error === undefined ? undefined : Promise.reject(error)), end.signal)
  return { attempt, end, told, problems: () => board.condition([]).problems }
}

const full = new AppError('cannot write it: the disk is full', { code: 'FULL', remedy: 'free space' })

test('what does not work is a problem until it works, and is told once for each reason', async () => {
  const { attempt, told, problems } = trouble()
  expect(await attempt()).toBe(true)
  expect([...told, ...problems()]).toEqual([])
  expect([await attempt(full), await attempt(full)]).toEqual([false, false])
  expect(problems()).toEqual(['snapshots: cannot write it: the disk is full; free space'])
  await attempt(new Error('no such directory'))
  expect(problems()).toEqual(['snapshots: no such directory'])
  expect(await attempt()).toBe(true)
  expect(problems()).toEqual([])
  expect(told).toEqual([
    'cannot take a snapshot; it is tried again: cannot write it: the disk is full',
    'cannot take a snapshot; it is tried again: no such directory',
    'can take a snapshot again',
  ])
})

test('what was ended by the stop is no trouble', async () => {
  const { attempt, end, told, problems } = trouble()
  end.abort(new Error('stopped'))
  await expect(attempt(full)).rejects.toThrow('stopped')
  expect([...told, ...problems()]).toEqual([])
})

test('a part that nobody waits for makes a cluster neither late nor, before it is a problem, less than ready', () => {
  const board = new Board()
  const component = { name: 'kubelet', status: () => ({ name: 'kubelet', state: 'ready' }) } as Component
  const state = () => board.condition([component]).state
  board.report({ name: 'metrics-server', state: 'pending', message: 'not yet', isAwaited: false })
  expect(state()).toBe('ready')
  board.report({ name: 'coredns', state: 'pending', message: 'not yet' })
  expect(state()).toBe('starting')
  board.report({ name: 'coredns', state: 'ready' })
  board.report({ name: 'metrics-server', state: 'degraded', message: 'no pod', isAwaited: false })
  expect(board.condition([component])).toEqual({ state: 'degraded', problems: ['metrics-server: no pod'] })
})
