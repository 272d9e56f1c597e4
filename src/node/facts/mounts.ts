import { join, relative } from 'node:path'
import type { HostFiles } from './host-files.ts'

/** One line of /proc/self/mountinfo. */
export interface Mount {
  readonly path: string
  readonly type: string
  /** Of the mount (noexec, ro) and of its file system (cgroup controllers), together. */
  readonly options: readonly string[]
  /** Which file system: "8:1". */
  readonly device: string
  /** The directory of the file system that is seen here. */
  readonly root: string
  /** What is mounted below it here is seen in other mount namespaces, too: containers with HostToContainer need that. */
  readonly isShared: boolean
}

/** In the order of mounting: a later one covers an earlier one at the same path. */
export function readMounts(files: HostFiles): Mount[] {
  const lines = (files.read('/proc/self/mountinfo') ?? '').split('\n')
  return lines.flatMap((line) => {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue: proc_pid_mountinfo(5)
    const [before = '', after = ''] = line.split(' - ')
    const [, , device = '', root = '', path, mountOptions = '', ...tags] = before.split(' ')
    const [type, , superOptions = ''] = after.split(' ')
    if (path === undefined || type === undefined) return []
    return [
      {
        path: unescape(path),
        type,
        options: [...mountOptions.split(','), ...superOptions.split(',')],
        device,
        root: unescape(root),
        isShared: tags.some((tag) => tag.startsWith('shared:')),
      },
    ]
  })
}

/** The mount that `path` is on. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  return mounts.reduce<Mount | undefined>(
    (best, mount) =>
      isBelow(path, mount.path) && mount.path.length >= (best?.path.length ?? 0) ? mount : best,
    undefined,
  )
}

/** Whether the last mount at `path` shows what would be there without it: a bind of the directory onto itself. */
export function isSelfBind(mounts: readonly Mount[], path: string): boolean {
  const at = mounts.findLastIndex((mount) => mount.path === path)
  const own = mounts[at]
  const below = own && mountOf(mounts.slice(0, at), path)
  if (below === undefined || below.device !== own?.device) return false
  return own.root === join(below.root, relative(below.path, path))
}

/** `path` itself or something below it. */
export function isBelow(path: string, directory: string): boolean {
  return path === directory || directory === '/' || path.startsWith(`${directory}/`)
}

/** \040 and the like: blanks, tabs, newlines and backslashes. */
function unescape(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}
