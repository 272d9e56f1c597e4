import { join } from 'node:path'
import { hostPath } from '../node/facts/host-path.ts'
import { runCommand } from '../supervisor/spawn.ts'
import type { StorageOptions } from './storage.ts'

/** For a database of some 100 GB. */
const saveTimeoutMs = 3_600_000

export interface SaveSnapshotOptions extends Pick<StorageOptions, 'config' | 'payload'> {
  /** This program. */
  readonly main?: string | undefined
}

/** `k8s snapshot save` in a process of its own: what a snapshot takes of memory and processor is gone after it. Returns its path. */
export async function saveSnapshot(
  { config, payload, main = process.argv[1] as string }: SaveSnapshotOptions,
  name: string,
  signal: AbortSignal,
): Promise<string> {
  const { dataDir, snapshotDir, snapshotSecretFile } = config
  const { stdout } = await runCommand({
    command: process.execPath,
    args: [
      ...[main, 'snapshot', 'save', name],
      ...[`--data-dir=${dataDir}`, `--snapshot-dir=${snapshotDir}`],
      ...(snapshotSecretFile === undefined ? [] : [`--snapshot-secret-file=${snapshotSecretFile}`]),
    ],
    // As the launcher sets it: Node needs a library that minimal systems lack.
    env: { PATH: hostPath, K8S_PAYLOAD_DIR: payload.dir, LD_LIBRARY_PATH: join(payload.dir, 'lib') },
    timeoutMs: saveTimeoutMs,
    signal,
  })
  // As the command says it (cli/snapshot/save.ts).
  return stdout.split('\n', 1)[0] as string
}
