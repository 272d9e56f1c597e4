import { createHash } from 'node:crypto'
import type { Family } from './facts.ts'
import type { Direction } from './ruleset.ts'

const hashLength = 24

/** Of sets and chains: nothing that users have written is a part of one. */
export function hashOf(given: unknown): string {
  return createHash('sha256').update(JSON.stringify(given)).digest('hex').slice(0, hashLength)
}

export function mapName(direction: Direction, family: Family): string {
  return `${direction}-${family}`
}

/** Pods of this node that are known. */
export function knownName(family: Family): string {
  return `known-${family}`
}

/** What a pod sends to itself, by way of its own Service. */
export function selfName(family: Family): string {
  return `self-${family}`
}

/** Of a group of peers. */
export function setName(group: string, family: Family): string {
  return `${group}-${family}`
}
