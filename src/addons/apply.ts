import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError } from '../base/errors.ts'
import { request, type HttpResponse, type TlsIdentity } from '../base/http.ts'
import type { Logger } from '../base/logger.ts'
import { manifestPath, type Manifest } from './manifest.ts'

/** Owner of the fields that the add-ons set, as `kubectl get --show-managed-fields` shows it. */
const fieldManager = 'k8s'
/** A namespace or a role that the API server is still making is there within this many tries. */
const maxAttempts = 20
const retryDelayMs = 250
const applyTimeoutMs = 10_000

export interface ApplyOptions {
  /** https://127.0.0.1:6443 */
  readonly server: string
  readonly tls: TlsIdentity
  readonly manifests: readonly Manifest[]
  readonly log: Logger
  readonly signal: AbortSignal
}

/**
 * Applies the manifests in their order by server-side apply (KEP-555). Fields that a user set and ours
 * do not mention stay; those we own return to our value. Repeatable.
 */
export async function applyManifests({ server, tls, manifests, log, signal }: ApplyOptions): Promise<void> {
  for (const manifest of manifests) {
    await applyWithRetry(() => applyOne({ server, tls, manifest, signal }), manifest, signal)
    log.debug({ kind: manifest.kind, name: manifest.metadata.name }, 'add-on object applied')
  }
}

async function applyWithRetry(
  apply: () => Promise<HttpResponse>,
  manifest: Manifest,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const failure = await apply().then(
      ({ status, body }) => (status < 300 ? undefined : `HTTP ${status}: ${body.slice(0, 500)}`),
      describeError,
    )
    if (failure === undefined) return
    signal.throwIfAborted()
    if (attempt === maxAttempts) {
      throw new AppError(`cannot apply ${manifest.kind} ${manifest.metadata.name}: ${failure}`, {
        code: 'ADDON_APPLY',
      })
    }
    await sleep(retryDelayMs, undefined, { signal })
  }
}

function applyOne({
  server,
  tls,
  manifest,
  signal,
}: {
  server: string
  tls: TlsIdentity
  manifest: Manifest
  signal: AbortSignal
}) {
  return request({
    method: 'PATCH',
    url: `${server}${manifestPath(manifest)}?fieldManager=${fieldManager}&force=true`,
    // JSON is YAML; application/apply-patch+cbor aside this is the only media type of an apply.
    headers: { 'content-type': 'application/apply-patch+yaml', accept: 'application/json' },
    body: JSON.stringify(manifest),
    tls,
    signal,
    timeoutMs: applyTimeoutMs,
  })
}
