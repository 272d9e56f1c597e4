import { environmentName, type OptionTable } from './option.ts'
import { describeSetting, type Setting, showText, usageError } from './setting.ts'
import { suggest } from './suggest.ts'

/** The flags of a command line, in their order: a name may come more than once. */
export type Flags = readonly { readonly name: string; readonly text: string }[]

export type Environment = Readonly<Record<string, string | undefined>>

/**
 * Names that start like settings and are none: the launcher's own, and the version that the build takes from
 * the same env file as a daemon in development.
 */
const otherEnvironmentNames = [
  'K8S_ARTIFACT',
  'K8S_HANGUP_IGNORED',
  'K8S_COVERAGE_DIR',
  'K8S_LAUNCHER',
  'K8S_NOTIFY_FD',
  'K8S_PAYLOAD_DIR',
  'K8S_VERSION',
]

export function settingsOfFlags(flags: Flags): Setting[] {
  const names = [...new Set(flags.map(({ name }) => name))]
  return names.map((name) => ({
    name,
    texts: flags.filter((flag) => flag.name === name).map(({ text }) => text),
    origin: { kind: 'flag' },
  }))
}

/** An empty variable is an unset one, as env files have them. */
export function settingsOfEnvironment(environment: Environment, options: OptionTable): Setting[] {
  return Object.keys(options).flatMap((name): Setting[] => {
    const text = environment[environmentName(name)]
    return text === undefined || text === '' ? [] : [{ name, texts: [text], origin: { kind: 'environment' } }]
  })
}

/** A line names no more variables than this. */
const namedVariables = 5

/**
 * Warnings of variables that look like settings and are none. Other tools have some (K8S_AUTH_HOST is
 * Ansible's), so that they end nothing. Values are not shown: they could be anything.
 */
export function unknownInEnvironment(environment: Environment, options: OptionTable): string[] {
  const known = [...Object.keys(options).map(environmentName), 'K8S_CONFIG']
  const unknown = Object.keys(environment)
    .filter((name) => name.startsWith('K8S_') && environment[name] !== '')
    .filter((name) => !known.includes(name) && !otherEnvironmentNames.includes(name))
    .sort()
    .map((name) => ({ name: showText(name), near: suggest(name, known) }))
  const misspelt = unknown.filter(({ near }) => near !== undefined)
  const foreign = unknown.filter(({ near }) => near === undefined).map(({ name }) => name)
  const lines = misspelt.map(
    ({ name, near }) => `${name} in the environment is no setting and is passed over; did you mean ${near}?`,
  )
  if (foreign.length === 0) return lines
  const more = foreign.length - namedVariables
  const shown = [...foreign.slice(0, namedVariables), ...(more > 0 ? [`${more} more`] : [])].join(', ')
  const verb = foreign.length === 1 ? 'is no setting and is' : 'are no settings and are'
  return [...lines, `${shown} in the environment ${verb} passed over`]
}

export function refuseUnknownKeys(settings: readonly Setting[], options: OptionTable): void {
  const unknown = settings.find(({ name }) => !Object.hasOwn(options, name))
  if (unknown === undefined) return
  const { name, origin } = unknown
  const near = suggest(name, Object.keys(options))
  const shown = describeSetting({ name: showText(name), origin })
  throw usageError(
    `cannot use ${shown}: there is no such setting; ${advice(near && origin.kind === 'flag' ? `--${near}` : near)}`,
  )
}

function advice(suggestion: string | undefined): string {
  return suggestion === undefined ? 'k8s server --help lists them' : `did you mean ${suggestion}?`
}
