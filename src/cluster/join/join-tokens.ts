import { clusterInfoAccess } from '../../addons/joining.ts'
import type { Api } from '../../api/client.ts'
import { objectPath } from '../../api/objects.ts'
import { isOurs, isUsers } from '../../addons/reconcile.ts'
import type { Logger } from '../../base/logger.ts'

export const tokensPath =
  '/api/v1/namespaces/kube-system/secrets?fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken'

/** A Secret of the type bootstrap.kubernetes.io/token (KEP-130). */
export interface TokenSecret {
  /** By key, in base64. */
  readonly data?: Readonly<Record<string, string>>
}

/** When the last of those ends with which cluster-info is signed, ms; undefined: there is none. */
export function openUntil(tokens: readonly TokenSecret[], nowMs: number): number | undefined {
  const ends = tokens.flatMap((token) => {
    const end = endOf(token)
    return textOf(token, 'usage-bootstrap-signing') === 'true' && end > nowMs ? [end] : []
  })
  return ends.length === 0 ? undefined : Math.max(...ends)
}

/** pkg/controller/bootstrap and the authenticator take what they cannot read as expired. */
function endOf(token: TokenSecret): number {
  const expiration = textOf(token, 'expiration')
  if (expiration === '') return Number.POSITIVE_INFINITY
  const end = Date.parse(expiration)
  return Number.isNaN(end) ? 0 : end
}

function textOf({ data }: TokenSecret, key: string): string {
  return Buffer.from(data?.[key] ?? '', 'base64').toString()
}

/** Lets all read cluster-info, or nobody any more. A user's own binding of that name stays as it is. Repeatable. */
export async function keepOpen(api: Api, isOpen: boolean, log: Logger): Promise<void> {
  const live = await api.get(clusterInfoAccess)
  if (isOpen && live === undefined) {
    await api.apply(clusterInfoAccess)
    log.info(
      { path: objectPath(clusterInfoAccess) },
      'cluster-info can be read by all, as there are join tokens',
    )
  }
  if (!isOpen && live !== undefined && isOurs(live) && !isUsers(live)) {
    await api.remove(clusterInfoAccess, live.metadata.uid)
    log.info('cluster-info can be read by nobody without credentials any more, as there is no join token')
  }
}
