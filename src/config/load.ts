import { join } from 'node:path'
import { firstOf, formatAddress } from '../base/address.ts'
import { AppError, describeError } from '../base/errors.ts'
import { findConflict, tenthAddress } from './conflicts.ts'
import { aloneFixed, type AnyConfig, type Config, hasNode } from './config.ts'
import type { Facts } from './facts.ts'
import { addFacts, presentRole, settingsOfFacts, warningOfHostName } from './fixed-settings.ts'
import { defaultConfigFile, settingsOfFile } from './table/file.ts'
import { type Host, thisHost } from './host.ts'
import { paths as pathsOf } from './paths.ts'
import { file } from './table/kinds.ts'
import { camelCase } from './table/option.ts'
import { type PresentRole, presentRoles, type RoleName, roleOf, roles } from './roles.ts'
import { rowOf, type SettingName, schema } from './schema.ts'
import type { RoleSettings } from './settings/role.ts'
import type { Row } from './settings/rows.ts'
import { describeSetting, parseSetting, type Setting, showText, usageError } from './table/setting.ts'
import {
  type Environment,
  type Flags,
  refuseUnknownKeys,
  settingsOfEnvironment,
  settingsOfFlags,
  unknownInEnvironment,
} from './table/sources.ts'

export interface Sources {
  readonly flags: Flags
  readonly environment: Environment
  readonly host?: Host
  /** That of the command; without it, the setting `role` decides. */
  readonly role?: PresentRole | undefined
  /** What is fixed wins over settings that contradict it, and they are not refused: for who removes what is there. */
  readonly factsWin?: boolean
  /** What is fixed in the cluster that is joined, and by whom it is known; as the facts of one's own cluster. */
  readonly joined?: JoinedFacts
  /** Is told of what is passed over, a line each. */
  readonly warn?: (line: string) => void
}

export interface JoinedFacts {
  readonly cluster: Facts['cluster']
  /** https://HOST:PORT */
  readonly server: string
}

const options: Readonly<Record<string, Row>> = schema

/**
 * The whole configuration of a server: flags before environment before file before defaults. What cannot
 * be used throws an AppError with the code USAGE and one line that names it; nothing is written anywhere.
 */
export async function loadConfig(sources: Omit<Sources, 'role'>): Promise<Config> {
  const config = await loadAnyConfig({ ...sources, role: 'server' })
  if (config.role !== 'server') throw new Error('bug: the role is not what was asked for')
  return config
}

/** As `loadConfig`, of whatever role this machine has. */
export async function loadAnyConfig({
  flags,
  environment,
  host = thisHost,
  role: wanted,
  factsWin = false,
  joined,
  warn = () => {},
}: Sources): Promise<AnyConfig> {
  const settings = await gather({ flags, environment, role: wanted })
  unknownInEnvironment(environment, options).forEach(warn)
  refuseUnknownKeys([...settings.file, ...settings.flags], options)
  const chosen = choose(settings)
  const dataDir = dataDirOf(chosen)
  const own = factsWin ? factsOrNone(host, { dataDir, warn }) : host.facts(dataDir)
  const facts = { ...own, ...(joined && { cluster: joined.cluster }) }
  const fixed = settingsOfFacts(facts, dataDir, joined?.server)
  if (factsWin) for (const { name } of fixed) chosen.delete(name)
  const role = roleOf(chosenRole({ chosen, fixed, wanted, facts, dataDir }))
  if (factsWin) forgetOtherRoles(chosen, role)
  else refuseOtherRoles([...settings.flags, ...settings.environment, ...settings.file], role)
  const renamed = roles[role].hasNode ? warningOfHostName({ chosen, facts, host, dataDir }) : undefined
  if (renamed !== undefined) warn(renamed)
  if (isCreatedAgain(chosen, fixed))
    warn(`--cluster-init does nothing: the cluster of ${dataDir} is there already, and goes on`)
  refuseTwoOrigins(chosen, fixed)
  addFacts(chosen, fixed, role)
  if (joined !== undefined) requireEndpoints(chosen, joined.server)
  const given = Object.fromEntries(
    [...chosen].map(([name, setting]) => [camelCase(name), parseSetting(optionOf(name), setting)]),
  )
  const config = complete({ ...plainDefaults(role), ...given, role: roles[role].setting }, host)
  if (!factsWin) refuseConflict(config, chosen)
  return Object.freeze(config)
}

/** A record that is damaged keeps nobody from removing it. */
function factsOrNone(
  host: Host,
  { dataDir, warn }: { dataDir: string; warn: (line: string) => void },
): Facts {
  try {
    return host.facts(dataDir)
  } catch (error) {
    warn(describeError(error))
    return { cluster: {}, node: {} }
  }
}

function chosenRole(given: {
  chosen: ReadonlyMap<string, Setting>
  fixed: readonly Setting[]
  wanted: PresentRole | undefined
  facts: Facts
  dataDir: string
}): Pick<RoleSettings, 'role' | 'serverMode'> {
  const { chosen, fixed, wanted, facts, dataDir } = given
  const setting = chosen.get('role')
  const mode = chosen.get('server-mode') ?? fixed.find(({ name }) => name === 'server-mode')
  const asked = setting && (parseSetting(optionOf('role'), setting) as PresentRole)
  if (setting !== undefined && wanted !== undefined && asked !== wanted) {
    throw usageError(
      `cannot use ${describeSetting(setting, asked)}: the command ${wanted} is of another role; k8s without a command runs that of the settings`,
    )
  }
  const role = wanted ?? asked
  const former = presentRole(facts.node['role'])
  if (role !== undefined && former !== undefined && role !== former) {
    const what =
      setting === undefined ? `run ${titleOf(role)} in ${dataDir}` : `use ${describeSetting(setting, asked)}`
    throw usageError(
      `cannot ${what}: ${setting === undefined ? 'it' : dataDir} is the data directory of ${titleOf(former)}; choose another one with --data-dir, or remove what is in it with k8s reset`,
    )
  }
  const serverMode = mode && (parseSetting(optionOf('server-mode'), mode) as 'single' | 'ha')
  return { role: role ?? former ?? 'server', serverMode: serverMode ?? 'single' }
}

function titleOf(role: PresentRole): string {
  return Object.values(roles).find(({ setting }) => setting === role)?.title ?? role
}

/** Of a file that stays as it is nobody need be told at each start. */
function isCreatedAgain(chosen: ReadonlyMap<string, Setting>, fixed: readonly Setting[]): boolean {
  const name = 'cluster-init'
  return chosen.get(name)?.origin.kind === 'flag' && fixed.some((fact) => fact.name === name)
}

/** What creates a cluster joins none. */
function refuseTwoOrigins(chosen: ReadonlyMap<string, Setting>, fixed: readonly Setting[]): void {
  const [creation, server] = [chosen.get('cluster-init'), chosen.get('server')]
  if (creation === undefined || !server?.texts.some(Boolean)) return
  if (fixed.some(({ name }) => name === 'cluster-init')) return
  if (parseSetting(optionOf('cluster-init'), creation) !== true) return
  throw usageError(
    `cannot use ${describeSetting(creation, 'true')}: it creates a cluster, and ${describeSetting(server, server.texts.join(','))} joins one that is there; leave one of them away`,
  )
}

/** Which etcd it is that others run, a cluster does not tell. */
function requireEndpoints(chosen: ReadonlyMap<string, Setting>, server: string): void {
  if (chosen.get('cluster-init')?.texts.at(-1) !== 'false' || chosen.has('etcd-endpoints')) return
  throw usageError(
    `cannot join the cluster at ${server} without --etcd-endpoints: others run its etcd; name it as the other servers do`,
  )
}

function forgetOtherRoles(chosen: Map<string, Setting>, role: RoleName): void {
  for (const name of chosen.keys()) if (!optionOf(name).roles.includes(role)) chosen.delete(name)
}

/** A value is not shown: some are secrets, and none of them is what is wrong. */
function refuseOtherRoles(settings: readonly Setting[], role: RoleName): void {
  const other = settings.find(({ name }) => !optionOf(name).roles.includes(role))
  if (other === undefined) return
  throw usageError(
    `cannot use ${describeSetting(other)}: ${roles[role].title} has no such setting; leave it away, or choose ${ownersOf(other, role)}, which has it`,
  )
}

/** Of servers the mode decides, of all else the role. */
function ownersOf({ name }: Setting, role: RoleName): string {
  const owners = optionOf(name).roles
  const modes = owners.filter((owner) => roles[owner].setting === 'server')
  if (roles[role].setting === 'server' && modes.length > 0) return `server-mode ${modes.join(' or ')}`
  return `the role ${presentRoles(owners).join(' or ')}`
}

/**
 * The data directory alone, for commands that talk to a running daemon: they work although somebody
 * has just broken a setting that they don't need.
 */
export async function loadDataDir(sources: Sources): Promise<string> {
  return dataDirOf(choose(await gather(sources)))
}

function dataDirOf(chosen: ReadonlyMap<string, Setting>): string {
  const setting = chosen.get('data-dir')
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

async function gather({ flags, environment, role }: Sources): Promise<Gathered> {
  const given = settingsOfFlags(flags.filter(({ name }) => name !== 'config'))
  const source = configFile({ flags, environment })
  const settings = await settingsOfFile(source)
  // The file of the machine is that of the role which systemd starts; a command of another role is not meant.
  const fileRole = settings.find(({ name }) => name === 'role')?.texts.at(-1) ?? schema.role.default
  const isOfOther = !source.named && role !== undefined && fileRole !== role
  return {
    flags: given,
    environment: settingsOfEnvironment(environment, options),
    file: isOfOther ? [] : settings,
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

/** The defaults that are plain values, of the settings that a role has, or learns. */
function plainDefaults(role: RoleName): Record<string, unknown> {
  const rows = Object.entries(options).filter(
    ([, option]) =>
      option.default !== undefined && [...option.roles, ...(option.learntBy ?? [])].includes(role),
  )
  return Object.fromEntries(rows.map(([name, option]) => [camelCase(name), option.default]))
}

/** Adds what depends on the machine, or on other settings. */
function complete(given: Record<string, unknown>, host: Host): AnyConfig {
  const base = given as unknown as AnyConfig
  if (!hasNode(base)) return { ...base, snapshotDir: base.snapshotDir ?? snapshotDirIn(base.dataDir) }
  if (base.role === 'kubelet') {
    const isOpen = base.profile === 'container'
    return {
      ...{ ...base, ...aloneFixed, nodeName: base.nodeName ?? hostNodeName(host) },
      kubeletBindAddress: base.kubeletBindAddress ?? (isOpen ? '127.0.0.1' : '0.0.0.0'),
    }
  }
  const node = {
    clusterDns: base.clusterDns ?? formatAddress(tenthAddress(firstOf(base.serviceCidr))),
    nodeName: base.nodeName ?? hostNodeName(host),
  }
  if (base.role === 'agent') return { ...base, ...node }
  return {
    ...{ ...base, ...node },
    bindAddress: base.bindAddress ?? (base.serviceCidr.includes(':') ? '::' : '0.0.0.0'),
    snapshotDir: base.snapshotDir ?? snapshotDirIn(base.dataDir),
    localStoragePath: base.localStoragePath ?? pathsOf(base).storageDir,
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
  throw new AppError(`cannot use the host name ${showText(name)} as node-name: allowed is ${kind.allowed}`, {
    code: 'HOST_NAME',
    remedy: 'give one with --node-name, or rename the machine',
  })
}

function refuseConflict(config: AnyConfig, chosen: ReadonlyMap<string, Setting>): void {
  const describe = (name: SettingName): string => {
    const setting = chosen.get(name)
    const { defaultText } = optionOf(name)
    const { show } = optionOf(name).kind
    const items = [(config as unknown as Record<string, unknown>)[camelCase(name)] ?? []].flat()
    const text = items.map((item) =>
      typeof item === 'object'
        ? (setting?.texts.at(-1) ?? defaultText)
        : (show?.(String(item)) ?? String(item)),
    )
    return describeSetting(setting ?? { name, origin: { kind: 'default' } }, text.join(','))
  }
  const conflict = findConflict(config, describe, (name) => chosen.has(name))
  if (conflict === undefined) return
  throw usageError(`cannot use ${describe(conflict.name)}: ${conflict.reason}`)
}

function optionOf(name: string): Row {
  const option = rowOf(name)
  if (option === undefined) throw new Error(`bug: there is no option ${name}`)
  return option
}
