import { AppError, describeError, type ErrorFields } from '../base/errors.ts'
import type { LogLevel } from '../base/logger.ts'
import type { DatabaseOptions } from './log/schema.ts'
import type { AlarmCause } from './mvcc/space-alarm.ts'
import type { DatastoreSettings } from './settings.ts'

/** What a thread of the datastore is started with. */
export type WorkerData =
  | { readonly role: 'server'; readonly settings: DatastoreSettings; readonly workerUrl: string }
  | { readonly role: 'log-writer'; readonly database: DatabaseOptions }
  | {
      readonly role: 'export'
      readonly database: Omit<DatabaseOptions, 'cacheBytes'>
      /** The program etcd-file, and the file that it makes. */
      readonly program: string
      readonly target: string
    }

/** From the thread that exports, when it is done. */
export interface ExportReply {
  readonly error?: PlainError
}

/** To the server's thread. */
export type ServerRequest = { readonly kind: 'stop' } | { readonly kind: 'ping' }

/** Where a datastore serves, as clients dial it. */
export interface Listening {
  readonly address: string
  readonly metricsUrl: string | undefined
}

/** What keeps a datastore from taking writes, while reads and watches go on. */
export interface DatastoreAlarm {
  readonly name: 'NOSPACE'
  readonly cause: AlarmCause
}

/** From the server's thread. */
export type ServerReply =
  | ({ readonly kind: 'serving' } & Listening)
  | { readonly kind: 'failed'; readonly error: PlainError }
  | { readonly kind: 'pong' }
  | { readonly kind: 'alarm'; readonly alarm: DatastoreAlarm | undefined }
  | { readonly kind: 'log'; readonly level: LogLevel; readonly fields: object; readonly message: string }

/** An AppError on its way between threads. */
interface PlainError {
  readonly message: string
  readonly code: string
  readonly remedy?: string | undefined
  readonly fields: ErrorFields
}

export function toPlainError(thrown: unknown): PlainError {
  const message = describeError(thrown)
  if (!(thrown instanceof AppError)) return { message, code: 'DATASTORE_BUG', fields: {} }
  return { message, code: thrown.code, remedy: thrown.remedy, fields: thrown.fields }
}

export function fromPlainError({ message, code, remedy, fields }: PlainError): AppError {
  return new AppError(message, { ...fields, code, ...(remedy === undefined ? {} : { remedy }) })
}
