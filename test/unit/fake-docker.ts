import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { temporaryDirectory } from './datastore/support.ts'

/** The socket of what answers as a Docker does, until the test ends. */
export async function fakeDocker(listener: RequestListener): Promise<string> {
  const socketPath = join(temporaryDirectory(), 'docker.sock')
  const server = createServer(listener).listen(socketPath)
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  return socketPath
}
