import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import type { NodeRecord } from '../../config/facts.ts'

/** The Node's address when it was last known; undefined before the first start, and when the file is damaged: it is found anew. */
export function readLastAddress(nodeRecord: string): string | undefined {
  const { address } = readRecord(nodeRecord)
  return typeof address === 'string' && isIP(address) !== 0 ? address : undefined
}

/** As `readLastAddress`, of the cluster's second family. */
export function readLastOtherAddress(nodeRecord: string): string | undefined {
  const { otherAddress } = readRecord(nodeRecord)
  return typeof otherAddress === 'string' && isIP(otherAddress) !== 0 ? otherAddress : undefined
}

/** By what this machine's entries elsewhere are known; undefined before it has any, and when the file is damaged. */
export function readNodeId(nodeRecord: string): string | undefined {
  const { id } = readRecord(nodeRecord)
  return typeof id === 'string' ? id : undefined
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

/** Empty where there is none, or a damaged one: who only asks does not fail for that, as a start does (config/facts.ts). */
function readRecord(nodeRecord: string): NodeRecord {
  try {
    return (JSON.parse(readFileSync(nodeRecord, 'utf8')) as NodeRecord | null) ?? {}
  } catch {
    return {}
  }
}
