/** One thing that a cluster asks of its machine, and how it stands with it. */
export interface Requirement {
  readonly name: string
  /** missing: the cluster fails where it is required, and lacks something where it is not. */
  readonly state: 'ok' | 'missing' | 'warning'
  readonly detail: string
  /** What to do when the state is not ok: one sentence or command. */
  readonly remedy?: string
  readonly required: boolean
}

export function ok(name: string, detail: string): Requirement {
  return { name, state: 'ok', detail, required: true }
}

export function missing(name: string, detail: string, remedy: string): Requirement {
  return { name, state: 'missing', detail, remedy, required: true }
}

export function warning(name: string, detail: string, remedy?: string): Requirement {
  return { name, state: 'warning', detail, required: false, ...(remedy === undefined ? {} : { remedy }) }
}
