import { describe, expect, test } from 'vitest'
import { backoffDelayMs, defaultBackoff } from '../../../src/supervisor/backoff.ts'

const almostOne = 1 - Number.EPSILON

describe('the delay doubles up to its maximum', () => {
  test.each([
    [1, 100],
    [2, 200],
    [3, 400],
    [9, 25_600],
    [10, 30_000],
    [5_000, 30_000],
  ])('after %i failures in a row it is at most %i ms', (failuresInRow, delayMs) => {
    const backoff = { ...defaultBackoff, random: () => almostOne }
    expect(backoffDelayMs(backoff, failuresInRow)).toBe(delayMs)
  })
})

describe('the jitter', () => {
  test.each([
    ['full', 0, 0],
    ['full', 0.25, 100],
    ['full', almostOne, 400],
    ['equal', 0, 200],
    ['equal', 0.25, 250],
    ['equal', almostOne, 400],
  ] as const)('%s with %d of 400 ms gives %i ms', (jitter, random, delayMs) => {
    expect(backoffDelayMs({ ...defaultBackoff, jitter, random: () => random }, 3)).toBe(delayMs)
  })
})
