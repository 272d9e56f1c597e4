import { lstatSync } from 'node:fs'
import { readdir, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, errorCode } from '../../base/errors.ts'
import { HostFiles } from '../facts/host-files.ts'
import { isBelow, readMounts } from '../facts/mounts.ts'
import { readStartTime } from './pod-processes.ts'
import type { FileStep } from './steps.ts'

const killLimitMs = 10_000
const killPollMs = 10
const cgroupLimitMs = 2_000

/** Runs a step that starts no program. Repeatable; throws an AppError that says what was left. */
export async function runFileStep(step: FileStep, { root = '/' }: { root?: string } = {}): Promise<void> {
  const files = new HostFiles(root)
  switch (step.kind) {
    case 'kill':
      return killIfSame(files, step)
    case 'cgroup':
      return removeCgroup(files.path(step.path))
    case 'remove':
      return removeTree(files, step.path)
    case 'rmdir':
      return removeIfEmpty(files.path(step.path))
  }
}

/** Returns when it is gone: until then its mounts and its cgroup are in use. */
async function killIfSame(
  files: HostFiles,
  { pid, startTime }: { pid: number; startTime: string },
): Promise<void> {
  const deadline = performance.now() + killLimitMs
  while (readStartTime(files, pid) === startTime) {
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
      if (errorCode(cause) !== 'EBUSY' || performance.now() > deadline) throw cause
    }
    await sleep(killPollMs)
  }
}

/** What is mounted there may be the only copy of someone's data. */
async function removeTree(files: HostFiles, path: string): Promise<void> {
  const mounted = readMounts(files).filter((mount) => mount.path !== path && isBelow(mount.path, path))
  if (mounted.length > 0) {
    throw new AppError(`cannot remove ${path}: ${mounted[0]?.path} is still mounted`, {
      code: 'RESET_MOUNTED',
      path,
      remedy: 'end what uses the mount, unmount it and run `k8s reset` again',
    })
  }
  try {
    await rm(files.path(path), { recursive: true, force: true })
  } catch (cause) {
    // A file system of its own is mounted at the path: it is empty now, and stays.
    if (errorCode(cause) !== 'EBUSY') throw cause
  }
}

async function removeIfEmpty(path: string): Promise<void> {
  try {
    await rmdir(path)
  } catch (cause) {
    if (!['ENOENT', 'ENOTEMPTY', 'EBUSY'].includes(errorCode(cause) ?? '')) throw cause
  }
}
