import { type MessagePort, parentPort, workerData } from 'node:worker_threads'

import { assert } from '../base/errors.ts'
import type { LogLevel, Logger } from '../base/logger.ts'
import { runLogWriter } from './log/writer-thread.ts'
import { type ServerReply, type ServerRequest, type WorkerData, toPlainError } from './messages.ts'
import { DatastoreServer } from './server.ts'

/** The entry of the datastore's threads: the one that serves, and the one that writes for it. */

assert(parentPort !== null, 'the datastore’s worker was started as a program')
const data = workerData as WorkerData
if (data.role === 'log-writer') runLogWriter(parentPort, data.database)
else await serve(parentPort, data)

async function serve(
  port: MessagePort,
  { settings, workerUrl }: Extract<WorkerData, { role: 'server' }>,
): Promise<void> {
  const reply = (message: ServerReply): void => port.postMessage(message)
  try {
    const server = new DatastoreServer({
      settings,
      workerUrl: new URL(workerUrl),
      log: forwardingLogger(reply),
      onFailure: (error) => {
        reply({ kind: 'failed', error: toPlainError(error) })
        port.close()
        process.exit(1)
      },
    })
    reply({ kind: 'serving', listening: await server.listen() })
    port.on('message', async (_request: ServerRequest) => {
      await server.stop()
      port.close()
    })
  } catch (thrown) {
    reply({ kind: 'failed', error: toPlainError(thrown) })
    port.close()
    process.exit(1)
  }
}

/** A logger whose records the main thread writes: pino is loaded once, and lines never mix. */
function forwardingLogger(reply: (message: ServerReply) => void): Logger {
  const method = (level: LogLevel) => (fields: object, message: string) =>
    reply({ kind: 'log', level, fields, message })
  const logger = {
    trace: () => undefined,
    debug: () => undefined,
    info: method('info'),
    warn: method('warn'),
    error: method('error'),
    fatal: method('fatal'),
    child: () => logger,
  }
  return logger as unknown as Logger
}
