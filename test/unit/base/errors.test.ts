import { expect, test } from 'vitest'
import { AppError } from '../../../src/base/errors.ts'

test('an error of another bundle is known by its name, and no other is', () => {
  const foreign = Object.assign(new Error('cannot a'), { name: 'AppError' })
  expect(foreign instanceof AppError).toBe(true)
  expect(new AppError('cannot a', { code: 'A' }) instanceof AppError).toBe(true)
  for (const other of [new Error('a'), { name: 'AppError' }, undefined])
    expect(other instanceof AppError).toBe(false)
})
