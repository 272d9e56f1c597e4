import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { runCommand } from '../../supervisor/spawn.ts'
import type { MachineTaskContext } from './task.ts'

/** An archive of several gigabytes on a slow disk takes minutes. */
export const importTimeoutMs = 15 * 60_000
export const listTimeoutMs = 60_000

/** Tells the images of an archive from all others. */
const archiveLabel = 'k8s.local/archive'

/** Where archives of images are imported to. */
export interface ImageStore {
  /** What was imported is written down here: beside the store's own data, so that it is lost with it. */
  readonly recordFile: string
  /** The names of all images. */
  readonly list: () => Promise<string[]>
  /** Returns the names of what is in the archive, where the store tells them. */
  readonly load: (archive: string) => Promise<readonly string[] | undefined>
  /** The names of what was in an archive, where `load` does not tell them: a process for each. */
  readonly imagesOf: (archive: string) => Promise<readonly string[]>
}

export type OpenStore = (
  context: Pick<MachineTaskContext, 'payload' | 'paths'>,
  signal: AbortSignal,
) => ImageStore

/** The daemon's own containerd, in which the images are pinned: the kubelet's garbage collection leaves them alone. */
export const containerdStore: OpenStore = ({ payload, paths }, signal) => {
  const ctr = (args: readonly string[], timeoutMs: number) =>
    runCommand({
      command: payload.bin('ctr'),
      args: [`--address=${paths.containerdSocket}`, '--namespace=k8s.io', ...args],
      env: { PATH: payload.binDir },
      timeoutMs,
      signal,
    })
  const list = async (...filter: readonly string[]) => {
    const { stdout } = await ctr(['images', 'ls', '--quiet', ...filter], listTimeoutMs)
    return stdout.split('\n').filter(Boolean)
  }
  return {
    recordFile: join(paths.containerdRoot, 'imported-archives.json'),
    list: () => list(),
    async load(archive) {
      const labels = ['io.cri-containerd.pinned=pinned', `${archiveLabel}=${labelOf(archive)}`]
      await ctr(['images', 'import', ...labels.map((label) => `--label=${label}`), archive], importTimeoutMs)
      return undefined
    },
    imagesOf: (archive) => list(`labels."${archiveLabel}"==${labelOf(archive)}`),
  }
}

/** A name may have characters that a filter has not. */
function labelOf(path: string): string {
  return createHash('sha256').update(path).digest('hex').slice(0, 16)
}
