import { etcdError } from '../etcd-errors.ts'
import { type Service, type ServiceContext, replyAfterCommit, unary } from '../service.ts'
import { StatusError, codes } from '../status.ts'

const authRevisionTag = 0x18
/** Of a store in which authentication was never enabled: server/auth/store.go. */
const authRevision = 1

/** What would be the first step towards enabling authentication. */
const refusedMethods = [
  'UserAdd',
  'UserGet',
  'UserList',
  'UserDelete',
  'UserChangePassword',
  'UserGrantRole',
  'UserRevokeRole',
  'RoleAdd',
  'RoleGet',
  'RoleList',
  'RoleDelete',
  'RoleGrantPermission',
  'RoleRevokePermission',
] as const

/** etcdserverpb.Auth: authentication is disabled, and stays so; who may connect is a matter of TLS. */
export function authService(context: ServiceContext): Service {
  const { engine, header } = context

  const status = unary((_reader, call) => {
    replyAfterCommit(context, call, (writer) => {
      header.write(writer, engine.store.revision)
      writer.uint(authRevisionTag, authRevision)
    })
  })

  const disable = unary((_reader, call) => {
    replyAfterCommit(context, call, (writer) => header.write(writer, engine.store.revision))
  })

  const enable = unary(() => {
    throw etcdError('rootUserNotExist')
  })

  const authenticate = unary(() => {
    throw etcdError('notAuthEnabled')
  })

  const refused = refusedMethods.map((name) => {
    const method = unary(() => {
      throw new StatusError(
        codes.unimplemented,
        `${name} is not supported: this datastore has no users and roles`,
      )
    })
    return [`/etcdserverpb.Auth/${name}`, method] as const
  })

  return [
    ['/etcdserverpb.Auth/AuthStatus', status],
    ['/etcdserverpb.Auth/AuthEnable', enable],
    ['/etcdserverpb.Auth/AuthDisable', disable],
    ['/etcdserverpb.Auth/Authenticate', authenticate],
    ...refused,
  ]
}
