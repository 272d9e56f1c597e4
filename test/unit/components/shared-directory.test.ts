import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'

const source = (path: string) => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).href)

/** Runs lines of a program in a mount namespace of its own, in which nothing is shared. */
function inPrivateMounts(lines: string): unknown {
  const program = `
    import { execFileSync } from 'node:child_process'
    import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
    import { silentLogger as log } from ${source('base/logger.ts')}
    import { shareDirectory } from ${source('components/shared-directory.ts')}
    import { HostFiles } from ${source('node/facts/host-files.ts')}
    import { isSelfBind, mountOf, readMounts } from ${source('node/facts/mounts.ts')}
    const directory = mkdtempSync('/tmp/k8s-share-')
    const mount = (...args) => execFileSync('mount', args)
    const look = (path) => {
      const mounts = readMounts(new HostFiles())
      const { path: at, isShared } = mountOf(mounts, path)
      return [at.replace(directory, 'DIR'), isShared, isSelfBind(mounts, path)]
    }
    const found = []
    try {
      ${lines}
    } finally {
      execFileSync('umount', ['--recursive', '--lazy', directory], { stdio: 'ignore' })
      rmSync(directory, { recursive: true })
    }
    process.stdout.write(JSON.stringify(found))`
  const output = execFileSync(
    'unshare',
    ['--mount', '--propagation', 'private', process.execPath, '--input-type=module', '--eval', program],
    { encoding: 'utf8' },
  )
  return JSON.parse(output)
}

test.skipIf(process.getuid?.() !== 0)(
  'a directory of a private mount is bound onto itself and shared, once, with what is in it',
  () => {
    const found = inPrivateMounts(`
      mount('-t', 'tmpfs', 'tmpfs', directory)
      mkdirSync(directory + '/kubelet')
      writeFileSync(directory + '/kubelet/file', '')
      symlinkSync(directory + '/kubelet', directory + '/link')
      await shareDirectory(directory + '/link', log)
      await shareDirectory(directory + '/kubelet', log)
      found.push(look(directory + '/kubelet'), readdirSync(directory + '/kubelet'))
      found.push(readMounts(new HostFiles()).filter(({ path }) => path === directory + '/kubelet').length)
      execFileSync('umount', [directory + '/kubelet'])`)
    expect(found).toEqual([['DIR/kubelet', true, true], ['file'], 1])
  },
)

test.skipIf(process.getuid?.() !== 0)('a mount of its own is only made shared', () => {
  const found = inPrivateMounts(`
    mount('-t', 'tmpfs', 'tmpfs', directory)
    await shareDirectory(directory, log)
    found.push(look(directory))`)
  expect(found).toEqual([['DIR', true, false]])
})

test.skipIf(process.getuid?.() !== 0)('nothing that is mounted below it is hidden', () => {
  const found = inPrivateMounts(`
    mount('-t', 'tmpfs', 'tmpfs', directory)
    mkdirSync(directory + '/kubelet/pods/volume', { recursive: true })
    mount('-t', 'tmpfs', 'tmpfs', directory + '/kubelet/pods/volume')
    await shareDirectory(directory + '/kubelet', log)
    found.push(look(directory + '/kubelet'), look(directory + '/kubelet/pods/volume'))`)
  expect(found).toEqual([
    ['DIR', false, false],
    ['DIR/kubelet/pods/volume', false, false],
  ])
})
