import { randomBytes } from 'node:crypto'
import { chmodSync, linkSync, lstatSync, mkdirSync, rmSync, type Stats } from 'node:fs'
import { once } from 'node:events'
import type { Server } from 'node:net'
import { dirname, join } from 'node:path'
import { AppError, errorCode } from '../base/errors.ts'
import { privateDirectoryMode, privateMode } from '../base/files.ts'
import { exchange, pathTooLong, socketPathLimit } from './exchange.ts'

/*
 * How a daemon gets its socket, without an instant in which others may connect to it or in which
 * one that another daemon serves is lost:
 *
 *    listen at a name of its own -> mode 0600 -> link to the path, which fails when it exists
 *                                                  |
 *           a daemon answers: refuse  <--- ask at the path ---> nobody listens: remove it, link again
 */

/** Another daemon may take the path between the removal and the link: it is asked then. */
const claimAttemptsLimit = 3

const identityTimeoutMs = 5_000

const groupOrOthersWrite = 0o022

/**
 * Listens at `path`. Returns what gives the path back. Throws DAEMON_RUNNING with the pid of the
 * daemon that serves it, SOCKET_PATH when it can't be a socket or others may write its directory.
 */
export async function listenAt(server: Server, path: string): Promise<() => void> {
  const directory = dirname(path)
  const ownPath = join(directory, `.${randomBytes(4).toString('hex')}`)
  for (const socketPath of [path, ownPath]) {
    if (Buffer.byteLength(socketPath) > socketPathLimit) throw pathTooLong(socketPath)
  }
  mkdirSync(directory, { recursive: true, mode: privateDirectoryMode })
  refuseOpenDirectory(directory)
  server.listen(ownPath)
  try {
    await once(server, 'listening')
    chmodSync(ownPath, privateMode)
    await claim(ownPath, path)
  } catch (error) {
    server.close()
    throw error
  } finally {
    rmSync(ownPath, { force: true })
  }
  const own = lstatSync(path)
  return () => removeIfSame(path, own)
}

async function claim(ownPath: string, path: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return linkSync(ownPath, path)
    } catch (error) {
      if (errorCode(error) !== 'EEXIST' || attempt === claimAttemptsLimit) throw error
    }
    await removeStale(path)
  }
}

/** A socket that nobody serves is what a daemon leaves that was killed. */
async function removeStale(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (stats === undefined) return
  if (!stats.isSocket()) {
    throw new AppError(`cannot serve ${path}: it exists and is not a socket`, {
      code: 'SOCKET_PATH',
      path,
      remedy: `Look at what it is; then remove it: rm ${path}`,
    })
  }
  const pid = await servingPid(path)
  if (pid === undefined) return removeIfSame(path, stats)
  const holder = pid === 0 ? 'a daemon that does not answer' : `the daemon with pid ${pid}`
  throw new AppError(`cannot serve ${path}: ${holder} serves it`, {
    code: 'DAEMON_RUNNING',
    path,
    ...(pid > 0 && { pid }),
    remedy: 'Stop it first with `k8s stop`, or use another --data-dir.',
  })
}

/** undefined: nobody serves the socket; 0: somebody who does not say who he is. */
async function servingPid(socketPath: string): Promise<number | undefined> {
  try {
    const request = { socketPath, message: 'daemon', body: undefined, timeoutMs: identityTimeoutMs } as const
    return Number((await exchange(request)).pid) || 0
  } catch (error) {
    return errorCode(error) === 'DAEMON_NOT_RUNNING' ? undefined : 0
  }
}

function removeIfSame(path: string, { dev, ino }: Stats): void {
  const current = lstatSync(path, { throwIfNoEntry: false })
  if (current?.dev === dev && current.ino === ino) rmSync(path, { force: true })
}

function refuseOpenDirectory(directory: string): void {
  const { mode, uid } = lstatSync(directory)
  const owned = uid === process.geteuid?.() || uid === 0
  if (owned && (mode & groupOrOthersWrite) === 0) return
  throw new AppError(`cannot serve a socket in ${directory}: other users may write there`, {
    code: 'SOCKET_PATH',
    directory,
    remedy: `Give it to the daemon alone: chown root ${directory} && chmod go-w ${directory}`,
  })
}
