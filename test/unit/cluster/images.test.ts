import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { Board } from '../../../src/cluster/condition.ts'
import { images } from '../../../src/cluster/tasks/images.ts'
import type { Capability } from '../../../src/components/component.ts'
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
  const whenReached: Partial<Record<Capability, string>> = {}
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
    reached: (capability: Capability) => {
      whenReached[capability] ??= imported()
      if (capability === 'images') there.resolve()
    },
  } as unknown as TaskContext
  const run = images.run(context, stop.signal)
  run.catch(there.reject)
  await there.promise
  return { problem: board.part('images')?.message, imported: imported(), whenReached }
}

function imported(): string {
  const file = join(directory, 'imported')
  return existsSync(file) ? readFileSync(file, 'utf8') : ''
}

test('pods are told to begin when what a user has put there is imported', async () => {
  writeFileSync(join(directory, 'own/pause.tar.zst'), '')
  writeFileSync(join(directory, 'own/coredns.tar.zst'), '')
  writeFileSync(join(directory, 'images/mine.tar'), '')
  const names = ['own/pause.tar.zst', 'images/mine.tar']
  expect((await importAll()).whenReached.archives).toBe(
    names.map((name) => `${join(directory, name)}\n`).join(''),
  )
})

test('and at once where there is nothing', async () => {
  writeFileSync(join(directory, 'own/pause.tar.zst'), '')
  expect((await importAll()).whenReached.archives).toBe('')
})

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

test('why an archive cannot be imported is told in a sentence', async () => {
  writeFileSync(join(directory, 'own/coredns.tar.zst'), '')
  for (const name of ['foreign', 'short']) writeFileSync(join(directory, `images/${name}.tar`), '')
  const ctr = `#!/bin/sh
fail() {
  echo 'time="2026-11-26T00:00:00Z" level=warning msg="cgroup v1 is deprecated"' >&2
  echo "ctr: $1" >&2
  exit 1
}
for last; do :; done
case "$*" in
*import*foreign.tar) fail 'image might be filtered out' ;;
*import*short.tar) fail 'unexpected EOF' ;;
*import*) echo "$last" >>${directory}/imported ;;
esac
`
  writeFileSync(join(directory, 'ctr'), ctr, { mode: 0o755 })
  const { problem } = await importAll()
  const allowed = 'it must be an OCI or Docker archive, .tar, .tar.gz, .tgz or .tar.zst'
  expect(problem?.split('; ')).toEqual([
    `cannot import ${directory}/images/foreign.tar: ${allowed}: none of its images is for this machine's architecture`,
    `cannot import ${directory}/images/short.tar: ${allowed}: unexpected EOF`,
  ])
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
