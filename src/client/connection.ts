import { ApiException, DiscoveryV1Api, KubeConfig } from '@kubernetes/client-node'
import { AppError, describeError, errorCode, isStatus } from '../base/errors.ts'

/** Of what the API server says no to. */
const messageLimit = 500

/** As the admin of the cluster of this machine. Throws CLUSTER_ACCESS where the machine has none. */
export function connect(adminKubeconfig: string): KubeConfig {
  const config = new KubeConfig()
  try {
    config.loadFromFile(adminKubeconfig)
  } catch (cause) {
    throw new AppError(
      `cannot use the cluster of this machine`,
      {
        code: 'CLUSTER_ACCESS',
        remedy: `run this as root on a server that has been started (--data-dir, if it has another data directory)`,
      },
      { cause },
    )
  }
  return config
}

/** Rejects with API_REQUEST, which says in one line what the API server said, or that it did not answer; its `causes` are those of a Status. */
export async function ask<Answer>(purpose: string, request: () => Promise<Answer>): Promise<Answer> {
  try {
    return await request()
  } catch (cause) {
    if (cause instanceof ApiException) {
      const { code, body } = cause as ApiException<unknown>
      throw new AppError(`cannot ${purpose}: ${messageOf(body)} (HTTP ${code})`, {
        code: 'API_REQUEST',
        status: code,
        causes: causesOf(body),
      })
    }
    throw new AppError(`cannot ${purpose}: the API server does not answer: ${reasonOf(cause)}`, {
      code: 'API_REQUEST',
      remedy: 'see "k8s status" on this server',
    })
  }
}

/** As `ask`; undefined where there is no such object. */
export async function find<Answer>(
  purpose: string,
  request: () => Promise<Answer>,
): Promise<Answer | undefined> {
  try {
    return await ask(purpose, request)
  } catch (error) {
    if (isStatus(error, 404)) return undefined
    throw error
  }
}

/** As the Service `kubernetes` has them: the servers that serve. */
export async function apiserverAddresses(
  config: KubeConfig,
): Promise<{ addresses: readonly [string, ...string[]]; port: number }> {
  const { items } = await ask('find the address of the API server', () =>
    config.makeApiClient(DiscoveryV1Api).listNamespacedEndpointSlice({
      namespace: 'default',
      labelSelector: 'kubernetes.io/service-name=kubernetes',
    }),
  )
  const slice = items.find(({ endpoints }) => (endpoints ?? []).length > 0)
  const [address, ...others] = (slice?.endpoints ?? []).flatMap((endpoint) => endpoint.addresses)
  const port = slice?.ports?.find(({ name }) => name === 'https')?.port
  if (address !== undefined && port !== undefined) return { addresses: [address, ...others], port }
  throw new AppError(
    'cannot find the address of the API server: the Service kubernetes has no endpoints yet',
    {
      code: 'API_REQUEST',
      remedy: 'try again when "k8s status" says that the API server is ready',
    },
  )
}

function reasonOf(cause: unknown): string {
  return describeError(cause) || (errorCode(cause) ?? 'no reason is known')
}

/** What stands behind the message, such as the budget that is in the way of an eviction. */
function causesOf(body: unknown): string | undefined {
  try {
    const { details } = JSON.parse(String(body)) as { details?: { causes?: { message?: unknown }[] } }
    const messages = (details?.causes ?? []).map(({ message }) => String(message ?? ''))
    return messages.filter(Boolean).join('; ').slice(0, messageLimit) || undefined
  } catch {
    return undefined
  }
}

function messageOf(body: unknown): string {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  try {
    const { message } = JSON.parse(text) as { message?: unknown }
    return String(message ?? text).slice(0, messageLimit)
  } catch {
    return text.slice(0, messageLimit)
  }
}
