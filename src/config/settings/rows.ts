import type { RoleName } from '../roles.ts'
import type { Kebab, Option, OptionTable } from '../table/option.ts'

/** What a setting is beside an option. */
export interface RowFacts {
  /** Every other role refuses the setting by name. */
  readonly roles: readonly RoleName[]
  /** Fixed since the cluster was created, or since the node was (facts.ts); without it, any start may change it. */
  readonly factOf?: 'cluster' | 'node'
  /** Roles that are told it by their cluster, and have no say in it. */
  readonly learntBy?: readonly RoleName[]
  /** What a change does, where it is more or less than to count from the next start on. */
  readonly change?: string
}

/** Any setting of the table. */
export type Row = OptionTable[string] & RowFacts

/** The settings of one subject, by their names: each field of `Values` in kebab case. */
export type Rows<Values> = {
  readonly [Name in keyof Required<Values> & string as Kebab<Name>]: Option<Required<Values>[Name]> & RowFacts
}
