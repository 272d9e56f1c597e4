/** Values are texts; a key is any that an object has of its own (`constructor` is a label as good as others). */
export type Labels = Readonly<Record<string, string>>

export interface Selector {
  /** The same for selectors that say the same. */
  readonly key: string
  /** A label that whatever it matches has: by it selectors are found, and not tried one by one. */
  readonly wanted: string | undefined
  readonly matches: (labels: Labels) => boolean
}

type Operator = 'In' | 'NotIn' | 'Exists' | 'DoesNotExist'

interface Requirement {
  readonly key: string
  readonly operator: Operator
  readonly values: readonly string[]
}

/** As `labelText` of a label that an object has. */
export function labelText(key: string, value: string): string {
  return JSON.stringify([key, value])
}

/** metav1.LabelSelector; without any requirement it matches everything. undefined: it is none. */
export function parseSelector(given: unknown): Selector | undefined {
  if (typeof given !== 'object' || given === null) return undefined
  const { matchLabels, matchExpressions } = given as { matchLabels?: unknown; matchExpressions?: unknown }
  const labels = labelsOf(matchLabels)
  const expressions = matchExpressions ?? []
  if (labels === undefined || !Array.isArray(expressions)) return undefined
  const requirements: Requirement[] = Object.entries(labels).map(([key, value]) => ({
    ...{ key, operator: 'In', values: [value] },
  }))
  for (const expression of expressions as unknown[]) {
    const requirement = requirementOf(expression)
    if (requirement === undefined) return undefined
    requirements.push(requirement)
  }
  return selectorOf(requirements)
}

/** undefined: they are none. */
export function labelsOf(given: unknown): Labels | undefined {
  if (given === undefined || given === null) return {}
  if (typeof given !== 'object') return undefined
  return Object.values(given).every((value) => typeof value === 'string') ? (given as Labels) : undefined
}

function selectorOf(given: readonly Requirement[]): Selector {
  const texts = new Map(given.map((one) => [JSON.stringify([one.key, one.operator, one.values]), one]))
  const keys = [...texts.keys()].toSorted()
  const requirements = [...texts.values()].map(({ values, ...one }) => ({ ...one, values: new Set(values) }))
  const one = given.find(({ operator, values }) => operator === 'In' && values.length === 1)
  return {
    key: `[${keys.join()}]`,
    wanted: one && labelText(one.key, one.values[0]!),
    matches: (labels) =>
      requirements.every(({ key, operator, values }) => {
        const value = Object.hasOwn(labels, key) ? labels[key] : undefined
        switch (operator) {
          case 'In':
            return value !== undefined && values.has(value)
          // labels.Requirement: what has no such label is not in any list either.
          case 'NotIn':
            return value === undefined || !values.has(value)
          case 'Exists':
            return value !== undefined
          case 'DoesNotExist':
            return value === undefined
        }
      }),
  }
}

function requirementOf(given: unknown): Requirement | undefined {
  const { key, operator, values = [] } = (given ?? {}) as Partial<Record<keyof Requirement, unknown>>
  const texts = values ?? []
  if (typeof key !== 'string' || !Array.isArray(texts) || !texts.every((text) => typeof text === 'string'))
    return undefined
  const isList = operator === 'In' || operator === 'NotIn'
  if (!isList && operator !== 'Exists' && operator !== 'DoesNotExist') return undefined
  if (isList === (texts.length === 0)) return undefined
  return { key, operator, values: [...new Set(texts as string[])].toSorted() }
}

/** Matches whatever there is. */
export const everything: Selector = selectorOf([])
