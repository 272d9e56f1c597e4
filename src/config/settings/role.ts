import { everyRole, type PresentRole, presentRoles, type RoleSetting, roles, servers } from '../roles.ts'
import { choice } from '../table/kinds.ts'
import { Refused, type ValueKind } from '../table/option.ts'
import type { Rows } from './rows.ts'

const group = 'Role'

const present = presentRoles(everyRole) as PresentRole[]

const listed = `${present.slice(0, -1).join(', ')} or ${present.at(-1)}`

const role: ValueKind<PresentRole> = {
  placeholder: 'ROLE',
  allowed: listed,
  choices: present,
  parse(text) {
    const known = present.find((name) => name === text)
    if (known !== undefined) return known
    const isToCome = Object.values(roles).some(({ setting }) => setting === (text as RoleSetting))
    return isToCome ? new Refused(`the role ${text} is not there yet; allowed is ${listed}`) : new Refused()
  },
}

export interface RoleSettings {
  readonly role: PresentRole
  readonly serverMode: 'single' | 'ha'
}

export const roleSettings: Rows<RoleSettings> = {
  role: {
    group,
    description: 'What this machine is of a cluster; `k8s` without a command runs it.',
    kind: role,
    default: 'server',
    roles: everyRole,
    factOf: 'node',
  },
  'server-mode': {
    group,
    description: 'How many servers share the cluster, and so the kind of its storage.',
    kind: choice('single', 'ha'),
    default: 'single',
    roles: servers,
    factOf: 'cluster',
  },
}
