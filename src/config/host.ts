import { hostname } from 'node:os'
import { type Facts, readFacts } from './facts.ts'

/** What the configuration depends on beside its sources; tests give another machine. */
export interface Host {
  readonly nodeName: () => string
  /** What was fixed when what is in a data directory was created. */
  readonly facts: (dataDir: string) => Facts
}

export const thisHost: Host = { nodeName: () => hostname().toLowerCase(), facts: readFacts }
