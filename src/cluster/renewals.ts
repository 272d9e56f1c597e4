import { AppError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Renewals } from '../pki/renewals.ts'

const putOff = 'CREDENTIALS_PUT_OFF'

export function tellRenewals({ renewed, warnings }: Omit<Renewals, 'putOff'>, log: Logger): void {
  for (const { name, reason } of renewed)
    log.info({ certificate: name }, `certificate renewed because ${reason}`)
  for (const warning of warnings) log.warn(warning)
}

/** Throws, in such a way that `isPutOff` is true of the error, where something was due and is not renewed. */
export function requireNoneLate(late: Renewals['putOff']): void {
  const [first] = late
  if (first === undefined) return
  const names = late.map(({ name, reason }) => `${name} (${reason})`).join(', ')
  throw new AppError(
    `cannot renew ${names}`,
    { code: putOff, remedy: 'what is there is used as it is: free some space, and look at the disk' },
    { cause: first.cause },
  )
}

/** Whether what could not be renewed may be so later. */
export function isPutOff(error: unknown): error is AppError {
  return error instanceof AppError && error.code === putOff
}
