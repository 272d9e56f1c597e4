import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Logger, silentLogger } from '../../../src/base/logger.ts'
import { exchange } from '../../../src/control/exchange.ts'
import { routes } from '../../../src/control/messages.ts'
import { serveControl } from '../../../src/control/server.ts'
import { converse, randomConversation } from '../../fuzz-http.ts'
import { fuzz, fuzzCases } from '../../random.ts'
import { daemonStatus, temporaryDirectory } from './support.ts'

const words = {
  requests: [
    'GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n',
    'GET /v1/daemon HTTP/1.1\r\nHost: a\r\n\r\n',
    'POST /v1/stop HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{"pods":false}',
  ],
  targets: Object.values(routes).map(({ path }) => path),
  bodies: [
    ...[
      '',
      '',
      '',
      '',
      '',
      '{"pods":false}',
      '{"pods":true}',
      '{}',
      '{"pods":1}',
      '{"__proto__":{"pods":true}}',
      '[]',
      'null',
      '1e999',
      '"',
    ],
    ...['{'.repeat(5000), `{"x":"${'x'.repeat(70_000)}"}`, '\u00ff\u00fe', '5\r\nhello\r\n0\r\n\r\n'],
  ],
}

const plan = fuzzCases(500)

test(
  'whatever a client of the control socket sends, the daemon answers the others',
  async () => {
    using directory = temporaryDirectory()
    const path = join(directory.path, 'control.sock')
    const errors: object[] = []
    const log: Logger = Object.assign(Object.create(silentLogger) as Logger, {
      error: (fields: object, text: string) => errors.push({ ...fields, text }),
    })
    const stops: unknown[] = []
    await using _server = await serveControl({
      path,
      handlers: { status: () => daemonStatus, stop: (request) => void stops.push(request) },
      log,
    })

    const request = { socketPath: path, message: 'daemon', body: undefined, timeoutMs: 60_000 } as const
    const askDaemon = () => exchange(request)
    const seen = new Map<number, number>()
    await fuzz(plan, async (random) => {
      for (const status of await converse({ path }, randomConversation(random, words), askDaemon))
        seen.set(status, (seen.get(status) ?? 0) + 1)
    })

    expect(errors).toEqual([])
    expect(seen.get(500)).toBeUndefined()
    expect([...seen.keys()]).toEqual(expect.arrayContaining([200, 202, 400, 404, 405]))
    // What stops the daemon is a request to stop, and nothing else in it.
    for (const request of stops) {
      expect(Object.entries(request as object).every(([, value]) => typeof value === 'boolean')).toBe(true)
    }
    expect(Number((await askDaemon()).pid)).toBe(process.pid)
  },
  plan.timeoutMs,
)
