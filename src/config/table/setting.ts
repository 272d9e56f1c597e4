import { AppError } from '../../base/errors.ts'
import { environmentName, type ListOption, type OptionTable, Refused, type SingleOption } from './option.ts'

/** What somebody wrote for one option, and where. */
export interface Setting {
  readonly name: string
  /** One text for each time it was given; the last one counts where there is one value only. */
  readonly texts: readonly string[]
  readonly origin: Origin
}

type Origin =
  | { readonly kind: 'flag' }
  | { readonly kind: 'environment' }
  | { readonly kind: 'file'; readonly path: string; readonly line: number }
  | { readonly kind: 'fact'; readonly path: string }
  | { readonly kind: 'default' }

/** Longer texts are cut in messages, which have one line. */
const shownLimit = 100

/** Ends a command with exit code 2; the message fits one line. */
export function usageError(message: string, options?: ErrorOptions): AppError {
  return new AppError(message, { code: 'USAGE' }, options)
}

/** The setting as its author wrote it: "--v=11", "v: 11 in /etc/k8s/config.yaml:3". */
export function describeSetting({ name, origin }: Pick<Setting, 'name' | 'origin'>, text?: string): string {
  const value = text === undefined ? '' : showText(text)
  switch (origin.kind) {
    case 'flag':
      return text === undefined ? `--${name}` : `--${name}=${value}`
    case 'environment':
      return `${environmentName(name)}${text === undefined ? '' : `=${value}`} in the environment`
    case 'file':
      return `${name}${text === undefined ? '' : `: ${value}`} in ${origin.path}:${origin.line}`
    case 'fact':
      return `${name}${text === undefined ? '' : ` ${value}`}, fixed in ${origin.path}`
    case 'default':
      return `the default ${name}${text === undefined ? '' : ` ${value}`}`
  }
}

/** A text that is quoted where it would not be seen for what it is. */
export function showText(text: string): string {
  const short = text.length > shownLimit ? `${text.slice(0, shownLimit)}...` : text
  return /^[\x21-\x7e]+$/.test(short) ? short : JSON.stringify(short)
}

export function parseSetting(option: OptionTable[string], setting: Setting): unknown {
  if (isList(option))
    return Object.freeze(itemsOf(option, setting).map((text) => parseText(option, setting, text)))
  if (setting.origin.kind === 'file' && setting.texts.length > 1 && option.kind.joinedBy === undefined) {
    throw usageError(
      `cannot use ${describeSetting(setting)}: it is a list; allowed is ${option.kind.allowed}`,
    )
  }
  return parseText(option, setting, textOf(option, setting))
}

/** What was written, as one text; of a flag that comes more than once, the last one. */
export function textOf(option: OptionTable[string], { texts, origin }: Setting): string {
  const { joinedBy } = option.kind
  if (isList(option)) return texts.join(',')
  return joinedBy !== undefined && origin.kind === 'file' ? texts.join(joinedBy) : (texts.at(-1) ?? '')
}

function parseText({ kind }: OptionTable[string], setting: Setting, text: string): unknown {
  if (text === '')
    throw usageError(`cannot use ${describeSetting(setting)}: it has no value; allowed is ${kind.allowed}`)
  // What Node has read for bytes that are no UTF-8: of a path it would make another one.
  if (text.includes('\ufffd'))
    throw usageError(`cannot use ${describeSetting(setting, text)}: it is not written in UTF-8`)
  const value = kind.parse(text)
  if (!(value instanceof Refused)) return value
  const shown = kind.show?.(text) ?? text
  throw usageError(
    `cannot use ${describeSetting(setting, shown)}: ${value.reason ?? `allowed is ${kind.allowed}`}`,
  )
}

/** An empty text is an empty list: `--disable=` undoes what the file says. */
function itemsOf({ separator }: ListOption<unknown>, { texts, origin }: Setting): string[] {
  const given = texts.filter((text) => text !== '')
  if (separator === 'comma') return given.flatMap((text) => text.split(','))
  if (origin.kind === 'environment' || origin.kind === 'fact')
    return given.flatMap((text) => text.trim().split(/\s+/))
  return given
}

export function isList(option: SingleOption<unknown> | ListOption<unknown>): option is ListOption<unknown> {
  return option.separator !== undefined
}
