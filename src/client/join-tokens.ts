import { setTimeout as sleep } from 'node:timers/promises'
import { CoreV1Api, RbacAuthorizationV1Api, type V1Secret } from '@kubernetes/client-node'
import { AppError } from '../base/errors.ts'
import { apiserverAddresses, ask, connect, find } from './connection.ts'

/** Where bootstrap tokens are, by Kubernetes' rules (KEP-130). */
const namespace = 'kube-system'
const type = 'bootstrap.kubernetes.io/token'
const namePrefix = 'bootstrap-token-'
const bundleType = 'k8s.local/server-bundle'
const signatureLimitMs = 30_000
const signatureIntervalMs = 200

/** A join token without its secret. */
export interface TokenSummary {
  readonly id: string
  /** RFC 3339; undefined: it does not end. */
  readonly expires: string | undefined
  readonly description: string
  /** The groups of who shows it. */
  readonly groups: readonly string[]
}

export interface NewToken {
  readonly id: string
  readonly secret: string
  readonly group: string
  readonly expires: Date | undefined
  readonly description: string | undefined
}

/** What a command line to join consists of. */
export interface JoinPoint {
  /** https://ADDRESS:PORT of a server. */
  readonly server: string
  /** PEM of the authority by which servers are known. */
  readonly authority: string
}

/** What goes with a token of a server: a Secret that its group can read. */
export interface NewBundle {
  readonly name: string
  readonly key: string
  readonly sealed: Buffer
}

/** Resolves when machines can join with it, or after some time with false. */
export async function createToken(kubeconfig: string, token: NewToken, bundle?: NewBundle): Promise<boolean> {
  const stringData = {
    'token-id': token.id,
    'token-secret': token.secret,
    'usage-bootstrap-authentication': 'true',
    'usage-bootstrap-signing': 'true',
    'auth-extra-groups': token.group,
    ...(token.expires !== undefined && { expiration: rfc3339(token.expires) }),
    ...(token.description !== undefined && { description: token.description }),
  }
  const body: V1Secret = { metadata: { name: namePrefix + token.id, namespace }, type, stringData }
  const api = connect(kubeconfig).makeApiClient(CoreV1Api)
  const created = await ask('create the token', () => api.createNamespacedSecret({ namespace, body }))
  if (bundle !== undefined) {
    try {
      await createBundle(kubeconfig, { bundle, group: token.group, owner: created })
    } catch (error) {
      // Nobody could join with it.
      await deleteToken(kubeconfig, token.id).catch(() => {})
      throw error
    }
  }
  return isSigned(api, token.id)
}

/** All of it goes with the token. */
async function createBundle(
  kubeconfig: string,
  { bundle, group, owner }: { bundle: NewBundle; group: string; owner: V1Secret },
): Promise<void> {
  const { name, key, sealed } = bundle
  const { name: ownerName = '', uid = '' } = owner.metadata ?? {}
  const ownerReferences = [{ apiVersion: 'v1', kind: 'Secret', name: ownerName, uid }]
  const metadata = { name, namespace, ownerReferences }
  const rbacGroup = 'rbac.authorization.k8s.io'
  const config = connect(kubeconfig)
  const rbac = config.makeApiClient(RbacAuthorizationV1Api)
  const purpose = 'create what the token opens'
  await ask(purpose, () =>
    config.makeApiClient(CoreV1Api).createNamespacedSecret({
      namespace,
      body: { metadata, type: bundleType, data: { [key]: sealed.toString('base64') } },
    }),
  )
  const rules = [{ apiGroups: [''], resources: ['secrets'], resourceNames: [name], verbs: ['get'] }]
  await ask(purpose, () => rbac.createNamespacedRole({ namespace, body: { metadata, rules } }))
  await ask(purpose, () =>
    rbac.createNamespacedRoleBinding({
      namespace,
      body: {
        metadata,
        roleRef: { apiGroup: rbacGroup, kind: 'Role', name },
        subjects: [{ apiGroup: rbacGroup, kind: 'Group', name: group }],
      },
    }),
  )
}

/** Who joins looks for the signature of his token in cluster-info, which kube-controller-manager makes. */
async function isSigned(api: CoreV1Api, id: string): Promise<boolean> {
  const purpose = 'read cluster-info'
  for (const endMs = performance.now() + signatureLimitMs; performance.now() < endMs; ) {
    const info = await find(purpose, () =>
      api.readNamespacedConfigMap({ name: 'cluster-info', namespace: 'kube-public' }),
    )
    if (info?.data?.[`jws-kubeconfig-${id}`] !== undefined) return true
    await sleep(signatureIntervalMs)
  }
  return false
}

/** The one that ends first comes first. */
export async function listTokens(kubeconfig: string): Promise<TokenSummary[]> {
  const api = connect(kubeconfig).makeApiClient(CoreV1Api)
  const { items } = await ask('list the tokens', () =>
    api.listNamespacedSecret({ namespace, fieldSelector: `type=${type}` }),
  )
  return items
    .map(summaryOf)
    .sort((one, other) => endOf(one) - endOf(other) || one.id.localeCompare(other.id))
}

/** Throws TOKEN_UNKNOWN. */
export async function deleteToken(kubeconfig: string, id: string): Promise<void> {
  const api = connect(kubeconfig).makeApiClient(CoreV1Api)
  const name = namePrefix + id
  const purpose = `delete the token ${id}`
  const secret = await find(purpose, () => api.readNamespacedSecret({ name, namespace }))
  const deleted =
    secret?.type === type && (await find(purpose, () => api.deleteNamespacedSecret({ name, namespace })))
  if (deleted) return
  throw new AppError(`cannot delete the token ${id}: there is none of that ID`, {
    code: 'TOKEN_UNKNOWN',
    remedy: 'see "k8s token list"',
  })
}

/** Takes all tokens of a group back; returns how many there were. */
export async function deleteTokensOf(kubeconfig: string, group: string): Promise<number> {
  const found = (await listTokens(kubeconfig)).filter(({ groups }) => groups.includes(group))
  for (const { id } of found) await deleteToken(kubeconfig, id)
  return found.length
}

/** At which addresses the servers of the cluster are found. */
export async function serverAddresses(kubeconfig: string): Promise<readonly string[]> {
  return (await apiserverAddresses(connect(kubeconfig))).addresses
}

/** As the Service `kubernetes` has them, the servers find each other and are found. */
export async function joinPoint(kubeconfig: string): Promise<JoinPoint> {
  const config = connect(kubeconfig)
  const caData = config.getCurrentCluster()?.caData ?? ''
  const {
    addresses: [address],
    port,
  } = await apiserverAddresses(config)
  const host = address.includes(':') ? `[${address}]` : address
  return { server: `https://${host}:${port}`, authority: Buffer.from(caData, 'base64').toString() }
}

function summaryOf({ metadata, data = {} }: V1Secret): TokenSummary {
  const text = (key: string) => Buffer.from(data[key] ?? '', 'base64').toString()
  return {
    id: (metadata?.name ?? '').slice(namePrefix.length),
    expires: text('expiration') || undefined,
    description: text('description'),
    groups: text('auth-extra-groups').split(',').filter(Boolean),
  }
}

function endOf({ expires }: TokenSummary): number {
  return expires === undefined ? Number.MAX_VALUE : Date.parse(expires) || 0
}

/** Without fractions of a second, which Kubernetes' reader of tokens does not expect. */
function rfc3339(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, 'Z')
}
