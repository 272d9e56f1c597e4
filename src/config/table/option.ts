/** How the text that a user gave becomes a value. */
export interface ValueKind<Value> {
  /** Stands for the value in help texts: `--node-ip=ADDRESS`. */
  readonly placeholder: string
  /** Ends the sentence "allowed is ...". */
  readonly allowed: string
  readonly choices?: readonly string[]
  /** What a flag without a value stands for; where absent, the flag needs a value. */
  readonly bare?: string
  readonly parse: (text: string) => Value | Refused
  /** A list in the file is one value, with this between its parts. */
  readonly joinedBy?: ','
  /** What an error message may say of a refused text, where not all of it. */
  readonly show?: (text: string) => string
}

/** Why a text is no value; without a reason of its own, what the kind allows says it. */
export class Refused {
  readonly reason: string | undefined

  constructor(reason?: string) {
    this.reason = reason
  }
}

/**
 * What stands between the items of a list. A list separated by spaces is never split where it comes
 * from a flag: kube-apiserver's own flags have commas and equal signs in their values.
 */
type ListSeparator = 'comma' | 'space'

interface Described {
  /** The heading under which help and documentation have it. */
  readonly group: string
  /** One sentence or two, without the default and without what is allowed. */
  readonly description: string
  /** In words, where the default is not a plain value. */
  readonly defaultText?: string
  /** -o for --output; only options of commands have one. */
  readonly short?: string
}

export interface SingleOption<Value> extends Described {
  readonly kind: ValueKind<Value>
  readonly separator?: undefined
  /** Absent where the default depends on the machine or on other options, or where there is none. */
  readonly default?: Value
}

export interface ListOption<Item> extends Described {
  readonly kind: ValueKind<Item>
  readonly separator: ListSeparator
  readonly default: readonly Item[]
}

export type Option<Value = unknown> = [Value] extends [readonly (infer Item)[]]
  ? ListOption<Item>
  : SingleOption<Value>

/** Options of one command, or of the configuration, by their names in kebab case. */
export type OptionTable = Readonly<Record<string, SingleOption<unknown> | ListOption<unknown>>>

/** nodeIp -> node-ip */
export type Kebab<Name extends string> = Name extends `${infer First}${infer Rest}`
  ? First extends Lowercase<First>
    ? `${First}${Kebab<Rest>}`
    : `-${Lowercase<First>}${Kebab<Rest>}`
  : Name

/** node-ip -> nodeIp */
export function camelCase(name: string): string {
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
}

/** node-ip -> K8S_NODE_IP */
export function environmentName(name: string): string {
  return `K8S_${name.replaceAll('-', '_').toUpperCase()}`
}
