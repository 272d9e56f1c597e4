/** Plain data: what a component's configuration is made of. An undefined field is left out. */
export type Yaml =
  | string
  | number
  | boolean
  | null
  | readonly Yaml[]
  | { readonly [key: string]: Yaml | undefined }

/** What YAML takes for itself without quotes: a word that is no number, no boolean and no null. */
const plainWord = /^[A-Za-z/][\w./-]*$/
const reserved = /^(true|false|yes|no|on|off|y|n|null)$/i

/**
 * A document of block style. The daemon writes such files and reads none of them back; the `yaml`
 * package would cost it 35 ms and 6 MB for that.
 */
export function renderYaml(document: { readonly [key: string]: Yaml | undefined }): string {
  return `${renderFields(document, '').join('\n')}\n`
}

function renderFields(fields: { readonly [key: string]: Yaml | undefined }, indent: string): string[] {
  return Object.entries(fields).flatMap(([key, value]) => {
    if (value === undefined) return []
    const name = `${indent}${renderScalar(key)}:`
    if (!isNested(value)) return [`${name} ${renderScalar(value)}`]
    return [name, ...renderNested(value, `${indent}  `)]
  })
}

function renderNested(
  value: readonly Yaml[] | { readonly [key: string]: Yaml | undefined },
  indent: string,
): string[] {
  if (!isList(value)) return renderFields(value, indent)
  return value.flatMap((item) => {
    if (!isNested(item)) return [`${indent}- ${renderScalar(item)}`]
    const [first = '', ...rest] = renderNested(item, `${indent}  `)
    return [`${indent}- ${first.trimStart()}`, ...rest]
  })
}

/** Empty lists and maps are scalars here: [] and {}. */
function isNested(value: Yaml): value is readonly Yaml[] | { readonly [key: string]: Yaml | undefined } {
  return typeof value === 'object' && value !== null && Object.keys(value).length > 0
}

function isList(
  value: readonly Yaml[] | { readonly [key: string]: Yaml | undefined },
): value is readonly Yaml[] {
  return Array.isArray(value)
}

/** A JSON string is a double-quoted YAML string. */
function renderScalar(value: Yaml): string {
  if (typeof value === 'string' && plainWord.test(value) && !reserved.test(value)) return value
  return JSON.stringify(value)
}
