import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import type { NodeRecord } from '../../config/facts.ts'

/** The Node's address when it was last known; undefined before the first start, and when the file is damaged. */
export function readLastAddress(nodeRecord: string): string | undefined {
  try {
    const { address } = JSON.parse(readFileSync(nodeRecord, 'utf8')) as NodeRecord
    return typeof address === 'string' && isIP(address) !== 0 ? address : undefined
  } catch {
    // It is found anew, as on the first start.
    return undefined
  }
}

/** By what this machine's entries elsewhere are known; undefined before it has any, and when the file is damaged. */
export function readNodeId(nodeRecord: string): string | undefined {
  try {
    const { id } = JSON.parse(readFileSync(nodeRecord, 'utf8')) as NodeRecord
    return typeof id === 'string' ? id : undefined
  } catch {
    return undefined
  }
}

/** The address that the daemon keeps on lo; undefined: none. */
export function readHeldAddress(heldAddress: string): string | undefined {
  try {
    const text = readFileSync(heldAddress, 'utf8').trim()
    return isIP(text) === 0 ? undefined : text
  } catch {
    return undefined
  }
}
