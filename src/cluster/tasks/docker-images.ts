import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { AppError } from '../../base/errors.ts'
import { request } from '../../base/http.ts'
import { importTimeoutMs, listTimeoutMs, type OpenStore } from './image-store.ts'

/** Of the answer to an archive: a line for each image, and what went wrong. */
const answerMaxBytes = 1 << 20

interface Asked {
  readonly socketPath: string
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

/** A Docker Engine. Its images have no pins, but those of containers and the pause image stay. */
export const dockerStore =
  (socketPath: string): OpenStore =>
  ({ paths }, signal) => ({
    recordFile: join(paths.criDockerdRoot, 'imported-archives.json'),
    list: () => listImages({ socketPath, timeoutMs: listTimeoutMs, signal }),
    load: (archive) => loadArchive(archive, { socketPath, timeoutMs: importTimeoutMs, signal }),
    imagesOf: async () => [],
  })

async function listImages({ socketPath, timeoutMs, signal }: Asked): Promise<string[]> {
  const url = 'http://docker/images/json'
  const { status, body } = await request({ url, socketPath, timeoutMs, signal })
  if (status !== 200) throw refused('list images', body)
  const images = JSON.parse(body) as readonly { readonly RepoTags?: readonly string[] | null }[]
  return images.flatMap(({ RepoTags }) => RepoTags ?? [])
}

/** As `docker load`: the names of the images that an archive has. */
async function loadArchive(path: string, asked: Asked): Promise<string[]> {
  const { status, body } = await request({
    ...asked,
    url: 'http://docker/images/load?quiet=1',
    method: 'POST',
    headers: { 'content-type': 'application/x-tar' },
    body: createReadStream(path),
    maxBytes: answerMaxBytes,
  })
  if (status !== 200) throw refused('load images', body)
  const lines = body.split('\n').filter(Boolean).map(readLine)
  const [error] = lines.flatMap(({ error }) => error ?? [])
  if (error !== undefined) throw refused('load images', error)
  return lines.flatMap(({ stream = '' }) => /^Loaded image: (\S+)$/m.exec(stream)?.[1] ?? [])
}

function readLine(line: string): { stream?: string; error?: string } {
  try {
    return JSON.parse(line) as { stream?: string; error?: string }
  } catch {
    return {}
  }
}

function refused(what: string, reason: string): AppError {
  const hint = reason.includes('manifest.json') ? ', which `docker save` writes' : ''
  return new AppError(`Docker cannot ${what}: ${reason.trim().slice(0, 300)}${hint}`, {
    code: 'DOCKER_IMAGES',
  })
}
