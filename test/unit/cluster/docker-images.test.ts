import { writeFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { expect, test } from 'vitest'
import { dockerStore } from '../../../src/cluster/tasks/docker-images.ts'
import type { OpenStore } from '../../../src/cluster/tasks/image-store.ts'
import { temporaryDirectory } from '../datastore/support.ts'
import { fakeDocker } from '../fake-docker.ts'

/** What answers as Docker does, and a store before it. */
async function storeBefore(listener: RequestListener) {
  const directory = temporaryDirectory()
  const socketPath = await fakeDocker(listener)
  const archive = join(directory, 'a.tar')
  writeFileSync(archive, 'the archive')
  const context = { paths: { criDockerdRoot: directory } } as Parameters<OpenStore>[0]
  return { archive, store: dockerStore(socketPath)(context, new AbortController().signal) }
}

test('an archive is sent as it is, and the names of its images come back', async () => {
  let sent = ''
  const { archive, store } = await storeBefore(async (asked, answer) => {
    sent = `${asked.method} ${asked.url} ${asked.headers['content-type']} ${await text(asked)}`
    answer.end('{"stream":"Loaded image: a:1\\n"}\n{"stream":"Loaded image: b:2\\n"}\n')
  })
  expect(await store.load(archive)).toEqual(['a:1', 'b:2'])
  expect(sent).toBe('POST /images/load?quiet=1 application/x-tar the archive')
})

test.each([
  [500, '{"message":"no space left on device"}', /no space left on device/],
  [200, '{"error":"open /tmp/x/manifest.json: no such file or directory"}', /which `docker save` writes/],
])('what Docker says of an archive that it refuses with %s is told', async (status, said, reason) => {
  const { archive, store } = await storeBefore(async (asked, answer) => {
    // A socket that is closed with something unread takes its answer along.
    await text(asked)
    answer.writeHead(status).end(said)
  })
  await expect(store.load(archive)).rejects.toThrow(reason)
})

test('an archive that goes away meanwhile is no end of the daemon', async () => {
  const { archive, store } = await storeBefore((asked) => void asked.resume())
  await expect(store.load(`${archive}.none`)).rejects.toThrow(/cannot POST/)
})

test('images are listed by all their names', async () => {
  const { store } = await storeBefore((_, answer) =>
    answer.end(JSON.stringify([{ RepoTags: ['a:1', 'a:2'] }, { RepoTags: null }, {}])),
  )
  expect(await store.list()).toEqual(['a:1', 'a:2'])
})

test('a Docker that answers with an error has no list', async () => {
  const { store } = await storeBefore((_, answer) => answer.writeHead(500).end('broken'))
  await expect(store.list()).rejects.toThrow('Docker cannot list images: broken')
})
