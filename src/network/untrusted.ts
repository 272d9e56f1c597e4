/* Of what users, kubelets and others have written into objects: whatever it is, it is one of these, or nothing. */
import {
  formatAddress,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isUnspecified,
  parseAddress,
} from '../base/address.ts'

export function arrayOf(given: unknown): readonly unknown[] {
  return Array.isArray(given) ? given : []
}

export function objectOf(given: unknown): Record<string, unknown> {
  return typeof given === 'object' && given !== null ? (given as Record<string, unknown>) : {}
}

export function textOf(given: unknown): string {
  return typeof given === 'string' ? given : ''
}

/** In the form in which the API has it; undefined: no pod and no machine has such an address. */
export function ordinaryAddress(given: unknown): string | undefined {
  const address = parseAddress(textOf(given))
  if (address === undefined) return undefined
  const isSpecial = [isLoopback, isLinkLocal, isMulticast, isUnspecified].some((is) => is(address))
  return isSpecial ? undefined : formatAddress(address)
}
