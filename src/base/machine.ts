import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'

/**
 * Tells this machine from others: by its id (machine-id(5)), which is for nobody outside to see and therefore hashed;
 * by its name where it has none.
 */
export function thisMachine(idFile = '/etc/machine-id'): string {
  return createHash('sha256')
    .update(`k8s ${readId(idFile) ?? hostname()}`)
    .digest('hex')
    .slice(0, 16)
}

/** Before the first boot is over the file may say "uninitialized". */
function readId(file: string): string | undefined {
  try {
    return /^[0-9a-f]{32}$/m.exec(readFileSync(file, 'utf8'))?.[0]
  } catch {
    return undefined
  }
}
