import { ApiException, KubeConfig } from '@kubernetes/client-node'
import { AppError, describeError, errorCode } from '../base/errors.ts'

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

/** Rejects with API_REQUEST, which says in one line what the API server said, or that it did not answer. */
export async function ask<Answer>(purpose: string, request: () => Promise<Answer>): Promise<Answer> {
  try {
    return await request()
  } catch (cause) {
    if (cause instanceof ApiException) {
      const { code, body } = cause as ApiException<unknown>
      throw new AppError(`cannot ${purpose}: ${messageOf(body)} (HTTP ${code})`, {
        code: 'API_REQUEST',
        status: code,
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
    if (error instanceof AppError && error.fields['status'] === 404) return undefined
    throw error
  }
}

function reasonOf(cause: unknown): string {
  return describeError(cause) || (errorCode(cause) ?? 'no reason is known')
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
