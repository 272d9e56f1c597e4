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
  const shell = 'mount -t tmpfs -o size=512k tmpfs "$0" && exec "$@" "$0"'
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

test.runIf(isRoot)('certificates that are due are put off as long as the old ones are good', () => {
  const lines = `
    import { prepareCredentials } from ${source('cluster/credentials.ts')}
    import { isPutOff } from ${source('cluster/renewals.ts')}
    import { preparePki } from ${source('pki/pki.ts')}
    const paths = pathsOf({ dataDir: directory })
    const config = {
      ...{ dataDir: directory, nodeName: 'one', bindAddress: '0.0.0.0', httpsListenPort: 6443 },
      ...{ serviceCidr: '10.96.0.0/12', clusterDomain: 'cluster.local', tlsSan: [] },
    }
    const log = { info() {}, warn() {} }
    const addresses = () => ({ nodeIp: '192.0.2.1', advertiseAddress: '192.0.2.1' })
    const prepare = (changed = {}) =>
      prepareCredentials({ config: { ...config, ...changed }, addresses, paths, log })
        .then(() => 'done', (error) => [isPutOff(error), error.message])
    const inDays = (days) =>
      preparePki({ ...config, ...addresses(), dir: paths.pkiDir, isNew: false, now: new Date(Date.now() + days * 86_400_000) })
        .then(({ renewed, putOff }) => [renewed.length, putOff.length], ({ code }) => code)
    seen.push(await prepare())
    fill()
    seen.push(await prepare({ tlsSan: ['two.example'] }), await inDays(300), await inDays(400))
    seen.push(await prepare(), readdirSync(paths.pkiDir).filter((name) => name.endsWith('.tmp')))
    rmSync(directory + '/ballast')
    seen.push(await prepare({ tlsSan: ['two.example'] }), await inDays(300))`
  expect(onSmallDisk(lines)).toEqual([
    'done',
    [true, 'cannot renew apiserver (its names changed)'],
    [0, 11],
    'FILE_WRITE',
    'done',
    [],
    'done',
    [11, 0],
  ])
})
