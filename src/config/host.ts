import { hostname } from 'node:os'

/** What the defaults depend on; tests give another machine. */
export interface Host {
  readonly nodeName: () => string
}

export const thisHost: Host = { nodeName: () => hostname().toLowerCase() }
