import { readFileSync } from 'node:fs'
import { expect, onTestFinished, test } from 'vitest'
import { commandOomScore, setOomScore, shieldFromOom } from '../../../src/base/oom-score.ts'

const ownScore = (): number => Number(readFileSync('/proc/self/oom_score_adj', 'utf8'))

/** For this test, as `choom` does, or a session of systemd. */
function raiseTo(score: number): void {
  const before = ownScore()
  onTestFinished(() => void setOomScore(process.pid, before))
  expect(setOomScore(process.pid, score)).toBe(true)
}

// Without CAP_SYS_RESOURCE it kept the score of its starter, and went before pods.
test('a daemon takes back what its starter has raised, or more', () => {
  raiseTo(ownScore() + 300)
  shieldFromOom()
  expect(ownScore()).toBeLessThanOrEqual(0)
})

test('a command keeps what its user has raised', () => {
  raiseTo(ownScore() + 300)
  expect(commandOomScore()).toBe(ownScore())
})
