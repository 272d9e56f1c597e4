import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'

const root = new URL('../../../', import.meta.url).pathname

/** What make would run for a target if nothing were built yet. */
function recipes(target: string): string[] {
  const settings = ['--dry-run', '--always-make', '--no-print-directory']
  return execFileSync('make', [...settings, target], { cwd: root, encoding: 'utf8' }).split('\n')
}

// `make run` packed as for a release: five minutes on two processors before the first start.
test.each([
  { target: 'run', level: 'fast' },
  { target: 'build-fast', level: 'fast' },
  { target: 'build', level: 'best' },
  { target: 'install', level: 'best' },
  { target: 'test', level: 'best' },
  { target: 'build/images/pause.tar.zst', level: 'best' },
])('make $target compresses everything with the level $level', ({ target, level }) => {
  const compressing = recipes(target).filter((line) => /scripts\/(pack|image)\.ts/.test(line))
  expect(compressing.length).toBeGreaterThan(0)
  expect(compressing.filter((line) => !line.endsWith(` ${level}`))).toEqual([])
})
