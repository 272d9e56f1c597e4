import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Logger, silentLogger } from '../../../src/base/logger.ts'
import { converse, randomConversation } from '../../fuzz-http.ts'
import { fuzz, fuzzCases } from '../../random.ts'
import { runDatastore, temporaryDirectory } from './support.ts'

const words = {
  requests: ['/metrics', '/health', '/livez'].map((path) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`),
  targets: ['/metrics', '/health', '/health?exclude=NOSPACE', '/livez', '/readyz', '/other'],
  bodies: ['', '', '{}', '5\r\nhello\r\n0\r\n\r\n', 'x'.repeat(20_000)],
}

const plan = fuzzCases(500)

test(
  'whatever a client of the metrics sends, they are served to the others',
  async () => {
    const errors: object[] = []
    const log: Logger = Object.assign(Object.create(silentLogger) as Logger, {
      error: (fields: object, text: string) => errors.push({ ...fields, text }),
    })
    const datastore = await runDatastore({
      path: join(temporaryDirectory(), 'state.db'),
      metricsListen: { host: '127.0.0.1', port: 0 },
      log,
    })
    let failure: Error | undefined
    void datastore.failed.then((error) => (failure = error))
    const { metricsUrl = '' } = datastore
    const to = { host: '127.0.0.1', port: Number(new URL(metricsUrl).port) }

    const seen = new Map<number, number>()
    await fuzz(plan, async (random) => {
      for (const status of await converse(to, randomConversation(random, words)))
        seen.set(status, (seen.get(status) ?? 0) + 1)
      expect(failure).toBeUndefined()
    })

    expect(errors).toEqual([])
    expect(seen.get(500)).toBeUndefined()
    expect([...seen.keys()]).toEqual(expect.arrayContaining([200, 400, 404, 405]))
    expect((await fetch(`${metricsUrl}/metrics`)).status).toBe(200)
  },
  plan.timeoutMs,
)
