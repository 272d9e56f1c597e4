import { readdirSync, readFileSync, readlinkSync, realpathSync, statSync } from 'node:fs'
import { readFile, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errorCode } from '../base/errors.ts'
import { listPids } from '../base/proc.ts'

/** containerd's files of a container name its programs; one that is larger is none of these. */
const bundleFileLimitBytes = 256 * 1024

/**
 * Whether something needs a payload still: a process that runs a program of it or has a library of it mapped, or a
 * container whose shim containerd would start again from there (`bundlesDir`: io.containerd.runtime.v2.task).
 */
export async function isPayloadUsed(given: {
  dir: string
  id: string
  bundlesDir: string
}): Promise<boolean> {
  return isRunFrom(given.dir) || (await isNamedBelow(given.bundlesDir, given.id))
}

/** Programs are known by their inodes: a process may have found them by another path, through a mount of its own. */
function isRunFrom(dir: string): boolean {
  const inodes = inodesBelow(dir)
  const prefix = `${realpathSync(dir)}/`
  return listPids().some((pid) => {
    try {
      const { dev, ino } = statSync(`/proc/${pid}/exe`)
      if (inodes.has(`${dev}:${ino}`)) return true
      if (readlinkSync(`/proc/${pid}/exe`).startsWith(prefix)) return true
      return readFileSync(`/proc/${pid}/maps`, 'utf8').includes(` ${prefix}`)
    } catch (error) {
      // It has ended, or is one of the kernel's.
      if (['ENOENT', 'ESRCH', 'EACCES'].includes(errorCode(error) ?? '')) return false
      throw error
    }
  })
}

function inodesBelow(dir: string): Set<string> {
  const files = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  return new Set(
    files.map((entry) => {
      const { dev, ino } = statSync(join(entry.parentPath, entry.name))
      return `${dev}:${ino}`
    }),
  )
}

/** Whether a small file below says `text`. */
async function isNamedBelow(dir: string, text: string): Promise<boolean> {
  const bundles = await foldersOf(dir).then((namespaces) => Promise.all(namespaces.map(foldersOf)))
  for (const bundle of bundles.flat()) {
    for (const name of await readdir(bundle).catch(() => [])) {
      const file = join(bundle, name)
      const found = await stat(file).catch(() => undefined)
      if (!found?.isFile() || found.size > bundleFileLimitBytes) continue
      if ((await readFile(file, 'latin1').catch(() => '')).includes(text)) return true
    }
  }
  return false
}

async function foldersOf(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch((error: unknown) => {
    if (errorCode(error) === 'ENOENT') return []
    throw error
  })
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(dir, entry.name))
}
