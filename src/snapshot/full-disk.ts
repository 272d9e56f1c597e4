import { AppError, describeError } from '../base/errors.ts'
import type { Paths } from '../config/paths.ts'

/** In the words of Node, of the kernel, and of SQLite. */
const words = /ENOSPC|EDQUOT|no space left on device|disk quota exceeded|database or disk is full/i

/** Runs what may be given again as long as nothing is decided: of a disk that fills meanwhile that is said, whoever has met it. */
export async function untilDecided<Result>(
  { action, paths: { dataDir } }: { action: string; paths: Pick<Paths, 'dataDir'> },
  run: () => Promise<Result>,
): Promise<Result> {
  try {
    return await run()
  } catch (cause) {
    if (cause instanceof AppError && cause.code === 'REPLACEMENT_UNFINISHED') throw cause
    if (!words.test(describeError(cause))) throw cause
    throw new AppError(
      `cannot ${action}: the disk of ${dataDir} is full`,
      {
        code: 'DISK_FULL',
        path: dataDir,
        remedy: 'free some space, and give the command again: nothing has changed',
      },
      { cause },
    )
  }
}
