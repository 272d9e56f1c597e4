import { metricsSecret, servedName } from '../addons/metrics-server.ts'
import type { Api } from '../api/client.ts'
import { readFileIfPresent } from '../base/files.ts'
import { authorityFiles, openAuthority } from '../pki/authority.ts'
import { issueLeaf, renewalOf, serving } from '../pki/leaves.ts'

/** It is issued anew months before its end. That the clock was set is seen at once. */
const lookIntervalMs = 3_600_000

interface KeyPair {
  readonly certificate: string
  readonly key: string
}

interface Looked extends KeyPair {
  /** PEM. */
  readonly authority: string
  readonly atMs: number
}

/**
 * What metrics-server serves with, of the cluster's authority, so that the API server knows whom it speaks to. It is kept in the
 * cluster, where each server finds it; the pod takes a renewed one up by itself.
 */
export class MetricsCertificate {
  readonly #pkiDir: string
  #looked: Looked | undefined

  constructor(pkiDir: string) {
    this.#pkiDir = pkiDir
  }

  /** Issued anew months before its end, or where it is not of this authority. */
  async current(api: Api, now = new Date()): Promise<Omit<Looked, 'atMs'>> {
    const looked = this.#looked
    const isRecent = looked !== undefined && Math.abs(now.getTime() - looked.atMs) < lookIntervalMs
    const { certFile } = authorityFiles(this.#pkiDir, 'server')
    if (isRecent && looked.authority === (await readFileIfPresent(certFile))) return looked
    return (this.#looked = await this.#look(api, now))
  }

  async #look(api: Api, now: Date): Promise<Looked> {
    const authority = await openAuthority({ name: 'server', dir: this.#pkiDir, now, mayCreate: false })
    const leaf = serving('metrics-server', [servedName])
    const isGood = ({ certificate, key }: KeyPair) =>
      renewalOf({ leaf, authority, certificatePem: certificate, keyPem: key, now }) === undefined
    const own = this.#looked
    const known = own !== undefined && isGood(own) ? own : await keptPair(api)
    const { certificate, key } =
      known !== undefined && isGood(known) ? known : issueLeaf(leaf, authority, now)
    return { certificate, key, authority: authority.certificatePem, atMs: now.getTime() }
  }
}

/** That of the cluster, whoever wrote it. */
async function keptPair(api: Api): Promise<KeyPair | undefined> {
  const { data } = ((await api.get(metricsSecret)) ?? {}) as { data?: Readonly<Record<string, string>> }
  const text = (key: string) => Buffer.from(data?.[key] ?? '', 'base64').toString()
  return data && { certificate: text('tls.crt'), key: text('tls.key') }
}
