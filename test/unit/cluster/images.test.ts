import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { Board } from '../../../src/cluster/condition.ts'
import { images } from '../../../src/cluster/tasks/images.ts'
import type { TaskContext } from '../../../src/cluster/tasks/task.ts'

let directory: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'k8s-images-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  for (const name of ['own', 'images', 'containerd']) mkdirSync(join(directory, name))
  // In place of ctr: it notes what it imports, and has to read that first.
  writeFileSync(
    join(directory, 'ctr'),
    `#!/bin/sh\nfor last; do :; done\ncase "$*" in *import*) cat "$last" && echo "$last" >>${directory}/imported;; esac\n`,
    { mode: 0o755 },
  )
})

/** Runs the task until all images of the artifact are there. */
async function importAll() {
  const stop = new AbortController()
  onTestFinished(() => stop.abort())
  const board = new Board()
  const there = Promise.withResolvers<void>()
  const context = {
    board,
    log: silentLogger,
    payload: {
      binDir: '/usr/bin:/bin',
      imagesDir: join(directory, 'own'),
      bin: (name: string) => join(directory, name),
    },
    paths: { imagesDir: join(directory, 'images'), containerdRoot: join(directory, 'containerd') },
    whenReady: async () => {},
    reached: () => there.resolve(),
  } as unknown as TaskContext
  const run = images.run(context, stop.signal)
  run.catch(there.reject)
  await there.promise
  return { problem: board.part('images')?.message, imported: readFileSync(`${directory}/imported`, 'utf8') }
}

test('what is no archive is named, and holds up no other', async () => {
  writeFileSync(join(directory, 'own/coredns.tar.zst'), '')
  writeFileSync(join(directory, 'images/mine.tar'), '')
  mkdirSync(join(directory, 'images/layout'))
  writeFileSync(join(directory, 'images/readme'), '')
  symlinkSync('nowhere', join(directory, 'images/link.tar'))
  // Whoever opens it waits for somebody to write.
  execFileSync('mkfifo', [join(directory, 'images/pipe.tar')])
  const { problem, imported } = await importAll()
  expect(imported.trim().split('\n')).toEqual(
    ['images/mine.tar', 'own/coredns.tar.zst'].map((name) => join(directory, name)),
  )
  for (const reason of [
    'images/layout: it is a directory',
    'images/link.tar: it is a link that leads nowhere',
    'images/pipe.tar: it is no plain file',
    'images/readme: its name must end in .tar',
  ])
    expect(problem).toContain(`cannot import ${directory}/${reason}`)
})

test.each([
  'null',
  '7',
  '[]',
  '{"',
  '{"ARCHIVE":null}',
  '{"ARCHIVE":{"sizeBytes":0,"modifiedMs":1,"images":7}}',
])('a record that somebody has damaged (%s) is none', async (record) => {
  const archive = join(directory, 'own/coredns.tar.zst')
  writeFileSync(archive, '')
  writeFileSync(join(directory, 'containerd/imported-archives.json'), record.replace('ARCHIVE', archive))
  expect((await importAll()).imported).toBe(`${archive}\n`)
})

vi.setConfig({ testTimeout: 60_000 })
