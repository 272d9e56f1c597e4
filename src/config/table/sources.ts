import { environmentName, type OptionTable } from './option.ts'
import { describeSetting, type Setting, showText, usageError } from './setting.ts'
import { suggest } from './suggest.ts'

/** The flags of a command line, in their order: a name may come more than once. */
export type Flags = readonly { readonly name: string; readonly text: string }[]

export type Environment = Readonly<Record<string, string | undefined>>

/**
 * Names that start like settings and are none: the launcher's own, the choice of a config file, and
 * the version that the build takes from the same env file as a daemon in development.
 */
const otherEnvironmentNames = [
  'K8S_CONFIG',
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

/** A misspelt setting must not be ignored. Its value is not shown: it could be anything. */
export function refuseUnknownEnvironment(environment: Environment, options: OptionTable): void {
  const known = Object.keys(options).map(environmentName)
  const unknown = Object.keys(environment)
    .filter(
      (name) => name.startsWith('K8S_') && !known.includes(name) && !otherEnvironmentNames.includes(name),
    )
    .sort()[0]
  if (unknown === undefined) return
  throw usageError(
    `cannot use ${showText(unknown)} in the environment: there is no such setting; ${advice(suggest(unknown, known))}`,
  )
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
