/** What an AppError carries beside its code: plain values that help its reader, never a secret. */
export type ErrorFields = Readonly<Record<string, string | number | boolean | undefined>>

/**
 * An error that its reader can act on. The message starts with "cannot"; `code` is stable and in
 * upper case (DATASTORE_LOCKED); `remedy` is one sentence that says what to do.
 */
export class AppError extends Error {
  override readonly name = 'AppError'
  readonly code: string
  readonly remedy: string | undefined
  readonly fields: ErrorFields

  constructor(
    message: string,
    { code, remedy, ...fields }: { code: string; remedy?: string } & ErrorFields,
    options?: ErrorOptions,
  ) {
    super(message, options)
    this.code = code
    this.remedy = remedy
    this.fields = fields
  }

  /** Those of another bundle, too, which has this class again. */
  static override [Symbol.hasInstance](thrown: unknown): boolean {
    return thrown instanceof Error && thrown.name === 'AppError'
  }
}

/** The message of whatever was thrown, with those of its causes: "cannot a: cannot b: ENOENT ...". */
export function describeError(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown)
  return thrown.cause === undefined ? thrown.message : `${thrown.message}: ${describeError(thrown.cause)}`
}

/** The `code` of a system error (ENOENT) or of an AppError; undefined for everything else. */
export function errorCode(thrown: unknown): string | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('code' in thrown)) return undefined
  return typeof thrown.code === 'string' ? thrown.code : undefined
}

/** Whether an API server has answered with one of these. */
export function isStatus(error: unknown, ...statuses: readonly number[]): error is AppError {
  return error instanceof AppError && statuses.includes(Number(error.fields['status']))
}

/** For invariants: a false condition is a bug of ours, never a bad input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`bug: ${message}`)
}
