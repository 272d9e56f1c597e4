import { createPrivateKey, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto'
import { rename, rm, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { nodesGroup } from '../../addons/joining.ts'
import { AppError } from '../../base/errors.ts'
import { privateMode, readFileIfPresent, syncDirectory, writeFileAtomically } from '../../base/files.ts'
import { type HttpResponse, request, type TlsIdentity } from '../../base/http.ts'
import { requestCertificate } from '../../pki/certificate.ts'
import { unknownToken } from '../join/discovery.ts'
import { type BootstrapToken, formatBootstrapToken } from '../join/token.ts'
import { signers } from '../join/verdict.ts'

const collection = '/apis/certificates.k8s.io/v1/certificatesigningrequests'
const answerLimitBytes = 64 * 1024
const defaultPollMs = 250
/** Of one server, before another one is asked: the one that approves may be elsewhere. */
const defaultPatienceMs = 10_000

/** What is looked at of a CertificateSigningRequest. */
interface Asked {
  readonly metadata?: { readonly name?: string }
  readonly status?: {
    readonly certificate?: string
    readonly conditions?: readonly { readonly type?: string; readonly message?: string }[]
  }
}

interface NodeCertificateOptions {
  readonly nodeName: string
  readonly token: BootstrapToken
  /** Of its key, until there is a certificate. */
  readonly keyFile: string
  readonly signal: AbortSignal
  readonly pollMs?: number
  readonly patienceMs?: number
}

/**
 * The first certificate of an agent's Node. A kubelet would ask for it as well, with a key that it keeps in memory: one that ends
 * before its answer leaves a name that is promised to a key which nobody has. Here the key is on the disk before anybody is asked.
 */
export class NodeCertificate {
  readonly #options: NodeCertificateOptions
  #key: KeyObject | undefined
  /** Of the request, whichever server took it: all know of it. */
  #name: string | undefined

  constructor(options: NodeCertificateOptions) {
    this.#options = options
  }

  /** Certificate and key, PEM. Throws JOIN_REFUSED where the cluster refuses it, with its reason, and forgets the key; JOIN_ANSWER for what may pass. */
  async askFor(server: string, tls: TlsIdentity): Promise<string> {
    const { signal, pollMs = defaultPollMs, patienceMs = defaultPatienceMs } = this.#options
    const key = (this.#key ??= await this.#keptKey())
    this.#name ??= await this.#ask(server, tls, key)
    const endMs = performance.now() + patienceMs
    while (performance.now() < endMs) {
      const asked = await this.#read(server, tls, this.#name)
      if (asked === undefined) break
      const certificate = asked.status?.certificate
      if (certificate !== undefined) return this.#checked(certificate, key, server)
      await this.#requireHope(server, asked)
      await sleep(pollMs, undefined, { signal })
    }
    throw answer(
      server,
      'it has not approved the certificate of this machine yet (there: k8s kubectl get csr)',
    )
  }

  async #keptKey(): Promise<KeyObject> {
    const { keyFile } = this.#options
    const kept = await readFileIfPresent(keyFile)
    try {
      if (kept !== undefined) return createPrivateKey(kept)
    } catch {
      // Nothing can have been approved for what cannot be read.
    }
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    await writeFileAtomically(keyFile, pemOf(privateKey), { mode: privateMode })
    return privateKey
  }

  async #ask(server: string, tls: TlsIdentity, key: KeyObject): Promise<string> {
    const { nodeName } = this.#options
    const subject = { commonName: `system:node:${nodeName}`, organizations: [nodesGroup] }
    const body = JSON.stringify({
      apiVersion: 'certificates.k8s.io/v1',
      kind: 'CertificateSigningRequest',
      metadata: { generateName: 'node-csr-' },
      spec: {
        request: Buffer.from(requestCertificate({ subject, key })).toString('base64'),
        signerName: signers.client,
        usages: ['digital signature', 'client auth'],
      },
    })
    const response = await this.#send(server, tls, collection, body)
    const name = response.status === 201 ? parsed(response, server).metadata?.name : undefined
    if (name === undefined)
      throw answer(server, `it answers ${response.status} to a request for a certificate`)
    return name
  }

  /** undefined: it is not there any more; it is asked for anew. */
  async #read(server: string, tls: TlsIdentity, name: string): Promise<Asked | undefined> {
    const response = await this.#send(server, tls, `${collection}/${encodeURIComponent(name)}`)
    if (response.status === 200) return parsed(response, server)
    if (response.status === 404) this.#name = undefined
    else throw answer(server, `it answers ${response.status} about a request for a certificate`)
    return undefined
  }

  async #send(server: string, tls: TlsIdentity, path: string, body?: string): Promise<HttpResponse> {
    const { token, signal } = this.#options
    const response = await request({
      ...{ url: `${server}${path}`, tls, signal, maxBytes: answerLimitBytes },
      headers: {
        authorization: `Bearer ${formatBootstrapToken(token)}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { method: 'POST', body }),
    })
    if (response.status === 401)
      throw unknownToken(server, `it does not take the token ${token.id}: it has expired`)
    return response
  }

  async #requireHope(server: string, { status }: Asked): Promise<void> {
    const condition = (wanted: string) => status?.conditions?.find(({ type }) => type === wanted)
    const failed = condition('Failed')
    if (failed !== undefined) {
      this.#name = undefined
      throw answer(server, `it could not sign the certificate: ${shown(failed.message)}`)
    }
    const denied = condition('Denied')
    if (denied === undefined) return
    // Nothing was promised to it.
    await rm(this.#options.keyFile, { force: true })
    throw new AppError(
      `cannot join the cluster at ${server}: it refuses the certificate of this machine: ${shown(denied.message)}`,
      { code: 'JOIN_REFUSED' },
    )
  }

  #checked(base64: string, key: KeyObject, server: string): string {
    const pem = Buffer.from(base64, 'base64').toString()
    try {
      if (new X509Certificate(pem).checkPrivateKey(key)) return pem + pemOf(key)
    } catch {
      // Told below.
    }
    this.#name = undefined
    throw answer(server, 'the certificate that it gives is not for the key of this machine')
  }
}

/** Puts it where a kubelet looks for it, and replaces it (client-go's certificate store): a file with its time, and a link to that. */
export async function keepNodeCertificate(pem: string, certificateFile: string): Promise<void> {
  const time = new Date().toISOString().slice(0, 19).replaceAll(':', '-').replace('T', '-')
  const file = join(dirname(certificateFile), `kubelet-client-${time}.pem`)
  await writeFileAtomically(file, pem, { mode: privateMode })
  const link = `${certificateFile}.new`
  await rm(link, { force: true })
  await symlink(file, link)
  await rename(link, certificateFile)
  await syncDirectory(dirname(certificateFile))
}

function pemOf(key: KeyObject): string {
  return key.export({ type: 'sec1', format: 'pem' }) as string
}

function parsed({ body }: HttpResponse, server: string): Asked {
  try {
    return (JSON.parse(body) as Asked | null) ?? {}
  } catch {
    throw answer(server, 'its answer to a request for a certificate cannot be read')
  }
}

function answer(server: string, reason: string): AppError {
  return new AppError(`cannot join the cluster at ${server}: ${reason}`, { code: 'JOIN_ANSWER' })
}

function shown(message: string | undefined): string {
  return String(message ?? 'it does not say why').slice(0, 500)
}
