/**
 * What this machine is of a cluster. A new role is a row here; what it consists of is a row of
 * src/cluster/plan.ts (a datastore alone is src/cluster/run-datastore.ts), and its settings name it in src/config/settings/.
 */
export type RoleName = 'single' | 'ha' | 'agent' | 'kubelet' | 'datastore' | 'virtual-node'

export interface Role {
  /** What the setting `role` says for it; of servers, `server-mode` says which. */
  readonly setting: RoleSetting
  /** As in "a datastore has no such setting". */
  readonly title: string
  /** Others are refused until they exist. */
  readonly isThere: boolean
  /** It has a kubelet and containerd: pods, mounts, links, rules and cgroups of this machine are its own. */
  readonly hasNode: boolean
}

export type RoleSetting = 'server' | 'agent' | 'kubelet' | 'datastore' | 'virtual-node'

const table = {
  single: { setting: 'server', title: 'a server', isThere: true, hasNode: true },
  ha: { setting: 'server', title: 'a server of server-mode ha', isThere: true, hasNode: true },
  agent: { setting: 'agent', title: 'an agent', isThere: true, hasNode: true },
  kubelet: { setting: 'kubelet', title: 'a kubelet alone', isThere: true, hasNode: true },
  datastore: { setting: 'datastore', title: 'a datastore', isThere: true, hasNode: false },
  'virtual-node': { setting: 'virtual-node', title: 'a virtual node', isThere: false, hasNode: false },
} as const satisfies Record<RoleName, Role>

export const roles: Readonly<Record<RoleName, Role>> = table

/** Those that the rows of settings name together. */
export const servers = ['single', 'ha'] as const satisfies readonly RoleName[]
export const nodes = ['single', 'ha', 'agent', 'kubelet'] as const satisfies readonly RoleName[]
export const clusterNodes = ['single', 'ha', 'agent'] as const satisfies readonly RoleName[]
/** Those whose cluster is that of others. */
export const joiners = ['agent'] as const satisfies readonly RoleName[]
/** Those that may join a cluster that is there. */
export const newcomers = ['ha', 'agent'] as const satisfies readonly RoleName[]
export const everyRole = Object.keys(roles) as readonly RoleName[]

/** What `role` may say today. */
export type PresentRole = Extract<(typeof table)[RoleName], { isThere: true }>['setting']

export function roleOf(
  config: { role: 'server'; serverMode: 'single' | 'ha' } | { role: Exclude<PresentRole, 'server'> },
): RoleName {
  return config.role === 'server' ? config.serverMode : config.role
}

/** The roles of a setting, as users call them, without those that are to come: "server, datastore". */
export function presentRoles(names: readonly RoleName[]): RoleSetting[] {
  return [...new Set(names.filter((name) => roles[name].isThere).map((name) => roles[name].setting))]
}
