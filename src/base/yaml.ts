/** Plain data that YAML can show. */
export type PlainData =
  | string
  | number
  | boolean
  | readonly PlainData[]
  | { readonly [key: string]: PlainData }

/** A word that YAML reads as the string that it is, at every version. */
const plainWord = /^(?!(?:true|false|yes|no|on|off|y|n|null)$)[A-Za-z_/][\w./@:+=-]*(?<!:)$/i

/**
 * Data as a YAML document, a line each, as somebody would write it. The library `yaml` costs the start 16 ms of processor
 * time as a part of the bundle, which only what users have written is worth.
 */
export function renderYaml(data: { readonly [key: string]: PlainData }): string {
  return lines(data, '').join('')
}

function lines(data: PlainData, indent: string): string[] {
  if (Array.isArray(data)) return data.flatMap((item: PlainData) => listItem(item, indent))
  if (typeof data !== 'object') throw new Error('bug: a scalar has no lines of its own')
  return Object.entries(data).flatMap(([key, value]) => {
    const name = `${indent}${scalar(key)}:`
    if (typeof value !== 'object') return [`${name} ${scalar(value)}\n`]
    if (isEmpty(value)) return [`${name} ${Array.isArray(value) ? '[]' : '{}'}\n`]
    return [`${name}\n`, ...lines(value, `${indent}  `)]
  })
}

function listItem(item: PlainData, indent: string): string[] {
  if (typeof item !== 'object') return [`${indent}- ${scalar(item)}\n`]
  if (isEmpty(item)) return [`${indent}- ${Array.isArray(item) ? '[]' : '{}'}\n`]
  const [first = '', ...rest] = lines(item, `${indent}  `)
  return [`${indent}- ${first.slice(indent.length + 2)}`, ...rest]
}

/** JSON's strings are YAML's, too. */
function scalar(value: string | number | boolean): string {
  return typeof value === 'string' && !plainWord.test(value) ? JSON.stringify(value) : String(value)
}

function isEmpty(data: object): boolean {
  return Object.keys(data).length === 0
}
