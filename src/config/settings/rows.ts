import type { Kebab, Option } from '../table/option.ts'

/** The settings of one subject, by their names: each field of `Values` in kebab case. */
export type Rows<Values> = {
  readonly [Name in keyof Required<Values> & string as Kebab<Name>]: Option<Required<Values>[Name]>
}
