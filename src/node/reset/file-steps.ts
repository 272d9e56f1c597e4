import { lstatSync } from 'node:fs'
import { readdir, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError, errorCode } from '../../base/errors.ts'
import { HostFiles } from '../facts/host-files.ts'
import { isBelow, readMounts } from '../facts/mounts.ts'
import { readStartTicks } from './pod-processes.ts'
import { removeTree } from './remove-tree.ts'
import type { FileStep } from './steps.ts'

const killLimitMs = 10_000
const killPollMs = 10
const cgroupLimitMs = 2_000
const removalAttempts = 6
/** Longer each time: 1.5 s in all. */
const removalRetryMs = 100

/** Runs a step that starts no program. Repeatable; throws an AppError that says what was left. */
export async function runFileStep(
  step: Exclude<FileStep, { kind: 'unmount' }>,
  { root = '/' }: { root?: string } = {},
): Promise<void> {
  const files = new HostFiles(root)
  switch (step.kind) {
    case 'kill':
      return killIfSame(files, step)
    case 'cgroup':
      return removeCgroup(files.path(step.path))
    case 'remove':
      return removeAll(files, step.path)
    case 'empty':
      return emptyDirectory(files, step.path)
    case 'rmdir':
      return removeIfEmpty(files, step.path)
  }
}

/** Returns when it is gone: until then its mounts and its cgroup are in use. */
async function killIfSame(
  files: HostFiles,
  { pid, startTicks }: { pid: number; startTicks: number },
): Promise<void> {
  const deadline = performance.now() + killLimitMs
  while (readStartTicks(files, pid) === startTicks) {
    if (performance.now() > deadline) {
      throw new AppError(`cannot end the process ${pid}`, {
        code: 'RESET_PROCESS',
        pid,
        remedy:
          'it hangs in the kernel (a network file system that is gone?): reboot and run `k8s reset` again',
      })
    }
    sendKill(pid)
    await sleep(killPollMs)
  }
}

function sendKill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (cause) {
    if (errorCode(cause) !== 'ESRCH') throw cause
  }
}

/** From the leaves up: a cgroup directory can be removed when it has neither processes nor children. */
async function removeCgroup(path: string): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return
  const entries = await readdir(path, { withFileTypes: true })
  for (const entry of entries) if (entry.isDirectory()) await removeCgroup(join(path, entry.name))
  const deadline = performance.now() + cgroupLimitMs
  for (;;) {
    try {
      return await rmdir(path)
    } catch (cause) {
      // A process that was killed leaves its cgroup a moment after it ended.
      if (errorCode(cause) !== 'EBUSY' || performance.now() > deadline) {
        throw new AppError(`cannot remove the cgroup ${path}`, { code: 'RESET_CGROUP', path }, { cause })
      }
    }
    await sleep(killPollMs)
  }
}

/** What is mounted there may be the only copy of someone's data. */
async function removeAll(files: HostFiles, path: string): Promise<void> {
  if (files.isLink(path)) return rm(files.path(path), { force: true })
  refuseMounted(files, path)
  // A file system of its own, somebody's: it stays, with nothing in it.
  if (isMountPoint(files, path)) return emptyDirectory(files, path)
  await removePath(files, path)
}

async function emptyDirectory(files: HostFiles, path: string): Promise<void> {
  refuseMounted(files, path)
  const failures: unknown[] = []
  const names = await readdir(files.path(path)).catch((cause: unknown) => {
    throw new AppError(`cannot empty ${path}`, { code: 'RESET_REMOVE', path }, { cause })
  })
  for (const name of names) {
    await removePath(files, join(path, name)).catch((error: unknown) => failures.push(error))
  }
  if (failures.length === 0) return
  throw new AppError(failures.map(describeError).join('; '), { code: 'RESET_REMOVE', path })
}

function refuseMounted(files: HostFiles, path: string): void {
  const real = files.realPath(path)
  const mounted = readMounts(files).find((mount) => mount.path !== real && isBelow(mount.path, real))
  if (mounted === undefined) return
  throw new AppError(`cannot remove ${path}: ${mounted.path} is still mounted`, {
    code: 'RESET_MOUNTED',
    path,
    remedy: 'end what uses the mount, unmount it and run `k8s reset` again',
  })
}

function isMountPoint(files: HostFiles, path: string): boolean {
  const real = files.realPath(path)
  return readMounts(files).some((mount) => mount.path === real)
}

/** What is in use, or is being filled by a process that is about to end, is tried again for a while. */
async function removePath(files: HostFiles, path: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await removeTree(files.path(path))
    } catch (cause) {
      if (attempt < removalAttempts && ['EBUSY', 'ENOTEMPTY'].includes(errorCode(cause) ?? '')) {
        await sleep(attempt * removalRetryMs)
        continue
      }
      throw new AppError(`cannot remove ${path}`, { code: 'RESET_REMOVE', path }, { cause })
    }
  }
}

async function removeIfEmpty(files: HostFiles, path: string): Promise<void> {
  try {
    await rmdir(files.path(path))
  } catch (cause) {
    // Someone else's files are in it, or a file system of its own is mounted there.
    if (['ENOENT', 'ENOTEMPTY'].includes(errorCode(cause) ?? '')) return
    if (errorCode(cause) === 'EBUSY' && isMountPoint(files, path)) return
    throw new AppError(`cannot remove ${path}`, { code: 'RESET_REMOVE', path }, { cause })
  }
}
