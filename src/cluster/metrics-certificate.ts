import { metricsSecret, servedName } from '../addons/metrics-server.ts'
import type { Api } from '../api/client.ts'
import { openAuthority } from '../pki/authority.ts'
import { issueLeaf, renewalOf, serving } from '../pki/leaves.ts'

interface KeyPair {
  readonly certificate: string
  readonly key: string
}

/**
 * What metrics-server serves with, of the cluster's authority, so that the API server knows whom it speaks to. It is kept in the
 * cluster, where each server finds it; the pod takes a renewed one up by itself.
 */
export class MetricsCertificate {
  readonly #pkiDir: string
  #current: KeyPair | undefined

  constructor(pkiDir: string) {
    this.#pkiDir = pkiDir
  }

  /** Issued anew months before its end, or where it is not of this authority. */
  async current(api: Api, now = new Date()): Promise<KeyPair & { authority: string }> {
    const authority = await openAuthority({ name: 'server', dir: this.#pkiDir, now, mayCreate: false })
    const leaf = serving('metrics-server', [servedName])
    const isGood = ({ certificate, key }: KeyPair) =>
      renewalOf({ leaf, authority, certificatePem: certificate, keyPem: key, now }) === undefined
    if (this.#current === undefined || !isGood(this.#current)) {
      const kept = await keptPair(api)
      this.#current = kept !== undefined && isGood(kept) ? kept : issueLeaf(leaf, authority, now)
    }
    return { ...this.#current, authority: authority.certificatePem }
  }
}

/** That of the cluster, whoever wrote it. */
async function keptPair(api: Api): Promise<KeyPair | undefined> {
  const { data } = ((await api.get(metricsSecret)) ?? {}) as { data?: Readonly<Record<string, string>> }
  const text = (key: string) => Buffer.from(data?.[key] ?? '', 'base64').toString()
  return data && { certificate: text('tls.crt'), key: text('tls.key') }
}
