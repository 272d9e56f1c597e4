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
