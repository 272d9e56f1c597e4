import { once } from 'node:events'
import { chmodSync, lstatSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { connect, type NetConnectOpts, type Server } from 'node:net'
import { dirname, join } from 'node:path'

import { AppError, errorCode } from './errors.ts'
import { privateMode } from './files.ts'

/**
 * Has a server listen at a Unix socket that only its owner may use: it is made in a private directory and moved, so that it is never
 * open to others. Rejects with SOCKET_TAKEN where somebody else serves.
 */
export async function listenPrivately(server: Server, path: string): Promise<void> {
  await refuseTaken(path)
  // In the directory itself, which may be a mount. (join would take the dot away.)
  const directory = mkdtempSync(`${dirname(path)}/.`)
  try {
    const socketPath = join(directory, 's')
    server.listen(socketPath)
    await once(server, 'listening')
    chmodSync(socketPath, privateMode)
    renameSync(socketPath, path)
  } catch (thrown) {
    server.close()
    throw thrown
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** A socket that nobody listens on is what a killed process left, and is replaced; nothing else is. */
async function refuseTaken(path: string): Promise<void> {
  let isSocket: boolean
  try {
    isSocket = lstatSync(path).isSocket()
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return
    throw thrown
  }
  if (isSocket && !(await answers({ path }))) return
  throw new AppError(`cannot listen on ${path}: ${isSocket ? 'another process does' : 'it is a file'}`, {
    code: 'SOCKET_TAKEN',
    address: path,
    remedy: `${isSocket ? 'Stop that process, or name' : 'Name'} another path.`,
  })
}

/** Whether somebody takes connections there. */
export async function answers(where: NetConnectOpts): Promise<boolean> {
  const socket = connect(where)
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
