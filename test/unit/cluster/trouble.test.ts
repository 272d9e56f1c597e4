import { expect, test } from 'vitest'
import { AppError } from '../../../src/base/errors.ts'
import { Board } from '../../../src/cluster/condition.ts'
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
