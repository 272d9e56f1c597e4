import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'

const source = (path: string) => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).href)

/** Runs lines of a program whose `directory` is a small disk of its own, in a mount namespace; returns its `seen`. */
function onSmallDisk(lines: string): unknown {
  const directory = mkdtempSync(join(tmpdir(), 'k8s-full-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const program = `
    import { readFileSync, readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
    import { writeRendered } from ${source('base/files.ts')}
    import { prepareDirectories } from ${source('cluster/directories.ts')}
    import { paths as pathsOf } from ${source('config/paths.ts')}
    const directory = process.argv[1]
    const fill = () => {
      const { bavail, bsize } = statfsSync(directory)
      writeFileSync(directory + '/ballast', Buffer.alloc(bavail * bsize))
    }
    const seen = []
    ${lines}
    process.stdout.write(JSON.stringify(seen))`
  const shell = 'mount -t tmpfs -o size=256k tmpfs "$0" && exec "$@" "$0"'
  const node = [process.execPath, '--input-type=module', '--eval', program]
  const command = ['--mount', '--propagation', 'private', 'sh', '-c', shell, directory, ...node]
  return JSON.parse(execFileSync('unshare', command, { encoding: 'utf8' }))
}

const isRoot = process.getuid?.() === 0

test.runIf(isRoot)('what a start writes as the last one did needs no space', () => {
  const lines = `
    const path = directory + '/containerd.toml'
    await writeRendered(path, 'as before')
    fill()
    await writeRendered(path, 'as before')
    seen.push(await writeRendered(path, 'otherwise').catch(({ code }) => code), readFileSync(path, 'utf8'))`
  expect(onSmallDisk(lines)).toEqual(['FILE_WRITE', 'as before'])
})

test.runIf(isRoot)('which boot it is need not be known to start', () => {
  const lines = `
    const paths = pathsOf({ dataDir: directory + '/data' })
    const log = { warn: ({ path }, message) => seen.push(path.slice(directory.length), message) }
    await prepareDirectories(paths, log)
    rmSync(paths.runDir + '/boot-id')
    fill()
    await prepareDirectories(paths, log)
    seen.push(readdirSync(paths.runDir))`
  const message = 'cannot remember which boot of the machine this is'
  expect(onSmallDisk(lines)).toEqual(['/data/run/boot-id', message, []])
})
