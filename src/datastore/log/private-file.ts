import { closeSync, openSync } from 'node:fs'

import { errorCode } from '../../base/errors.ts'

const privateMode = 0o600

/**
 * Makes an empty file for its owner alone, unless it exists. One that exists is not even opened:
 * closing it would drop the locks that this process has on it (fcntl(2), F_SETLK).
 */
export function createPrivateFile(path: string): void {
  try {
    closeSync(openSync(path, 'ax', privateMode))
  } catch (thrown) {
    if (errorCode(thrown) !== 'EEXIST') throw thrown
  }
}
