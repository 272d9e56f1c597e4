import { type MessagePort, parentPort, workerData } from 'node:worker_threads'

import { assert } from '../base/errors.ts'
import type { LogLevel, Logger } from '../base/logger.ts'
import { writeEtcdFile } from './etcd-file/etcd-file.ts'
import { Dump } from './log/dump.ts'
import { runLogWriter } from './log/writer-thread.ts'
import {
  type ExportReply,
  type ServerReply,
  type ServerRequest,
  type WorkerData,
  toPlainError,
} from './messages.ts'
import { DatastoreServer } from './server.ts'

/** The entry of the datastore’s threads: the one that serves, the one that writes for it, and those that export. */

assert(parentPort !== null, 'the datastore’s worker was started as a program')
const data = workerData as WorkerData
if (data.role === 'log-writer') runLogWriter(parentPort, data.database)
else if (data.role === 'export') void exportDatabase(parentPort, data)
else void serve(parentPort, data)

async function exportDatabase(
  port: MessagePort,
  { database, program, target }: Extract<WorkerData, { role: 'export' }>,
): Promise<void> {
  const reply = (message: ExportReply): void => port.postMessage(message)
  try {
    using dump = new Dump(database, { isOurs: true })
    await writeEtcdFile(dump, { program, path: target })
    reply({})
  } catch (thrown) {
    reply({ error: toPlainError(thrown) })
  }
}

async function serve(port: MessagePort, data: Extract<WorkerData, { role: 'server' }>): Promise<void> {
  const reply = (message: ServerReply): void => port.postMessage(message)
  // Whoever started this thread ends it when it has failed.
  const fail = (thrown: unknown): void => reply({ kind: 'failed', error: toPlainError(thrown) })
  try {
    const server = new DatastoreServer({
      settings: data.settings,
      workerUrl: new URL(data.workerUrl),
      log: forwardingLogger(reply),
      onFailure: fail,
      onAlarm: (alarm) => reply({ kind: 'alarm', alarm }),
    })
    port.on('message', async ({ kind }: ServerRequest) => {
      if (kind === 'ping') return reply({ kind: 'pong' })
      await server.stop()
      port.close()
    })
    reply({ kind: 'serving', ...(await server.start()) })
  } catch (thrown) {
    fail(thrown)
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
