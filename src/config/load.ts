import { join } from 'node:path'
import { formatAddress } from '../base/address.ts'
import { findConflict, rangeOf, tenthAddress } from './conflicts.ts'
import type { Config } from './config.ts'
import { defaultConfigFile, settingsOfFile } from './table/file.ts'
import { type Host, thisHost } from './host.ts'
import { file } from './table/kinds.ts'
import { camelCase, type OptionTable } from './table/option.ts'
import { type SettingName, schema } from './schema.ts'
import { describeSetting, parseSetting, type Setting, showText, usageError } from './table/setting.ts'
import {
  type Environment,
  type Flags,
  refuseUnknownEnvironment,
  refuseUnknownKeys,
  settingsOfEnvironment,
  settingsOfFlags,
} from './table/sources.ts'

export interface Sources {
  readonly flags: Flags
  readonly environment: Environment
  readonly host?: Host
}

const options: OptionTable = schema

/**
 * The whole configuration: flags before environment before file before defaults. What cannot be used
 * throws an AppError with the code USAGE and one line that names it; nothing is written anywhere.
 */
export async function loadConfig({ flags, environment, host = thisHost }: Sources): Promise<Config> {
  const settings = await gather({ flags, environment })
  refuseUnknownEnvironment(environment, options)
  refuseUnknownKeys([...settings.file, ...settings.flags], options)
  const chosen = choose(settings)
  const given = Object.fromEntries(
    [...chosen].map(([name, setting]) => [camelCase(name), parseSetting(optionOf(name), setting)]),
  )
  const config = await complete(given, host)
  refuseConflict(config, chosen)
  return Object.freeze(config)
}

/**
 * The data directory alone, for commands that talk to a running daemon: they work although somebody
 * has just broken a setting that they don't need.
 */
export async function loadDataDir(sources: Sources): Promise<string> {
  const setting = choose(await gather(sources)).get('data-dir')
  return String(
    setting === undefined ? schema['data-dir'].default : parseSetting(schema['data-dir'], setting),
  )
}

/** Some settings alone, from all of their sources, for commands that need no more. */
export async function loadSettings<Name extends SettingName>(
  names: readonly Name[],
  sources: Sources,
): Promise<{ readonly [Key in Name]: string | undefined }> {
  const chosen = choose(await gather(sources))
  const values = names.map((name) => {
    const setting = chosen.get(name)
    const value = setting === undefined ? optionOf(name).default : parseSetting(optionOf(name), setting)
    return [name, value === undefined ? undefined : String(value)]
  })
  return Object.fromEntries(values) as { readonly [Key in Name]: string | undefined }
}

interface Gathered {
  readonly flags: readonly Setting[]
  readonly environment: readonly Setting[]
  readonly file: readonly Setting[]
}

async function gather({ flags, environment }: Sources): Promise<Gathered> {
  const given = settingsOfFlags(flags.filter(({ name }) => name !== 'config'))
  return {
    flags: given,
    environment: settingsOfEnvironment(environment, options),
    file: await settingsOfFile(configFile({ flags, environment })),
  }
}

function configFile({ flags, environment }: Sources): { path: string; named: boolean } {
  const flag = flags.findLast(({ name }) => name === 'config')
  const text = flag?.text ?? (environment['K8S_CONFIG'] || undefined)
  if (text === undefined) return { path: defaultConfigFile, named: false }
  const origin = { kind: flag === undefined ? 'environment' : 'flag' } as const
  const path = parseSetting(
    { kind: file, group: '', description: '' },
    { name: 'config', texts: [text], origin },
  )
  return { path: String(path), named: true }
}

/** The setting of the strongest source that has one; lists of different sources are not joined. */
function choose({ flags, environment, file: fromFile }: Gathered): Map<string, Setting> {
  return new Map([...fromFile, ...environment, ...flags].map((setting) => [setting.name, setting]))
}

async function complete(given: Partial<Config>, host: Host): Promise<Config> {
  const fixed = Object.fromEntries(
    Object.entries(options)
      .filter(([, option]) => option.default !== undefined)
      .map(([name, option]) => [camelCase(name), option.default]),
  ) as unknown as Config
  const base = { ...fixed, ...given }
  const { family } = rangeOf(base.serviceCidr).first
  const nodeIp = given.nodeIp ?? (await host.nodeIp(family))
  return {
    ...base,
    bindAddress: given.bindAddress ?? (family === 4 ? '0.0.0.0' : '::'),
    advertiseAddress: given.advertiseAddress ?? nodeIp,
    clusterDns: given.clusterDns ?? formatAddress(tenthAddress(base.serviceCidr)),
    nodeName: given.nodeName ?? hostNodeName(host),
    snapshotDir: given.snapshotDir ?? snapshotDirIn(base.dataDir),
    nodeIp,
  }
}

/** Where snapshots are, unless a setting says otherwise. */
export function snapshotDirIn(dataDir: string): string {
  return join(dataDir, 'snapshots')
}

function hostNodeName(host: Host): string {
  const name = host.nodeName()
  const { kind } = schema['node-name']
  if (typeof kind.parse(name) === 'string') return name
  throw usageError(
    `cannot use the host name ${showText(name)} as node-name: allowed is ${kind.allowed}; give one with --node-name`,
  )
}

function refuseConflict(config: Config, chosen: ReadonlyMap<string, Setting>): void {
  const describe = (name: SettingName): string => {
    const items = [config[camelCase(name) as keyof Config] ?? []].flat()
    const { show } = optionOf(name).kind
    const text = items.map((item) => show?.(String(item)) ?? String(item)).join(',')
    return describeSetting(chosen.get(name) ?? { name, origin: { kind: 'default' } }, text)
  }
  const conflict = findConflict(config, describe)
  if (conflict !== undefined) throw usageError(`cannot use ${describe(conflict.name)}: ${conflict.reason}`)
}

function optionOf(name: string): OptionTable[string] {
  const option = options[name]
  if (option === undefined) throw new Error(`bug: there is no option ${name}`)
  return option
}
