import { expect, test } from 'vitest'
import { pingDocker, readDocker } from '../../../../src/node/facts/docker.ts'
import { fakeDocker } from '../../fake-docker.ts'

/** Answers as Docker would, by path; others are unknown to it. */
function answering(answers: Readonly<Record<string, string>>): Promise<string> {
  return fakeDocker((asked, answer) => {
    const said = answers[asked.url ?? '']
    answer.writeHead(said === undefined ? 404 : 200).end(said)
  })
}

test('what Docker says of itself is read', async () => {
  const socketPath = await answering({
    '/version': '{"Version":"28.5.2","ApiVersion":"1.51"}',
    '/info': '{"DockerRootDir":"/srv/docker"}',
    '/networks/bridge': '{"Options":{"com.docker.network.bridge.name":"docker1"}}',
  })
  expect(await readDocker(socketPath)).toEqual({
    ...{ version: '28.5.2', apiVersion: '1.51', rootDir: '/srv/docker', bridge: 'docker1' },
  })
})

test('what it does not say, or says in another way, has no effect', async () => {
  const socketPath = await answering({ '/version': '[]', '/info': '{"DockerRootDir":7}' })
  expect(await readDocker(socketPath)).toEqual({
    ...{ version: 'of no version', apiVersion: '0', rootDir: '/var/lib/docker', bridge: undefined },
  })
})

test.each([
  ['an error', {}, 'with 404'],
  ['no JSON', { '/version': 'hello', '/info': 'hello' }, 'not valid JSON'],
])('whoever answers with %s is no Docker', async (_, answers, reason) => {
  await expect(readDocker(await answering(answers))).rejects.toThrow(reason)
})

test('a ping is answered, or not', async () => {
  const { signal } = new AbortController()
  await pingDocker(await answering({ '/_ping': 'OK' }), signal)
  await expect(pingDocker(await answering({}), signal)).rejects.toThrow('answers 404')
})
