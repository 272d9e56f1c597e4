import { AppError } from '../../base/errors.ts'

/** What is there cannot be read: the file is damaged, or its disk fails. */
export function damagedValue(path: string, cause: unknown): AppError {
  return new AppError(
    'cannot read a value from the datastore',
    {
      code: 'DATASTORE_DAMAGED_VALUE',
      path,
      remedy: 'See what else is damaged with "k8s db check", and restore a snapshot.',
    },
    { cause },
  )
}
