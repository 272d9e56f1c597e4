import { closeSync, fsyncSync, mkdirSync, openSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

import { errorCode } from '../../base/errors.ts'

const privateMode = 0o600
const privateDirectoryMode = 0o700

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

/**
 * Makes a directory, with those above it. What is in it survives a power cut only if its name does, which
 * its parent holds; SQLite syncs the directory that its files are in, and none above.
 */
export function makePrivateDirectory(path: string): void {
  const directory = resolve(path)
  const first = mkdirSync(directory, { recursive: true, mode: privateDirectoryMode })
  if (first === undefined) return
  for (let made = directory; made.length >= first.length; made = dirname(made)) syncDirectory(dirname(made))
}

function syncDirectory(path: string): void {
  const descriptor = openSync(path, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}
