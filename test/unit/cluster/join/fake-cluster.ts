import { fromBER, type Sequence } from 'asn1js'
import { createHmac, createPublicKey, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { onTestFinished } from 'vitest'
import { authorityHash } from '../../../../src/cluster/join/token.ts'
import { type TestAuthority, testAuthority } from '../../datastore/test-certificates.ts'

export const token = { id: 'abcdef', secret: '0123456789abcdef' }

const csrPath = '/apis/certificates.k8s.io/v1/certificatesigningrequests'

/** Whose certificate a request asks for: the third part of what is signed. */
function keyIn(pem: string): KeyObject {
  const { result } = fromBER(Buffer.from(pem.replaceAll(/-----.*-----/g, ''), 'base64'))
  const [signed] = (result as Sequence).valueBlock.value as [Sequence]
  const der = Buffer.from((signed.valueBlock.value[2] as Sequence).toBER())
  return createPublicKey({ key: der, format: 'der', type: 'spki' })
}

/** What an API server answers to who joins. Everything in it may be changed by a test. */
export class FakeCluster {
  authority: TestAuthority = testAuthority('server')
  /** What it answers beside that, before anything else. */
  more: (asked: { path: string; method: string; body: string }) => [number, object] | undefined = () =>
    undefined
  readonly clientAuthority: TestAuthority = testAuthority('client')
  readonly nodes = new Set<string>()
  /** The requests for certificates, PEM, by their names. */
  readonly requests = new Map<string, string>()
  /** What becomes of one. */
  verdict: (pem: string) => object = (pem) => ({
    conditions: [{ type: 'Approved' }],
    certificate: Buffer.from(this.clientAuthority.sign(keyIn(pem))).toString('base64'),
  })
  /** Each of what was asked: the path, and whether the token came with it. */
  readonly asked: string[] = []
  /** What cluster-info is signed with; undefined: it is not. */
  signer: { id: string; secret: string } | undefined = token
  header = { alg: 'HS256', kid: token.id }
  bundle = () => this.authority.cert + this.clientAuthority.cert
  version = 'v1.37.1'
  isTokenGood = true
  isReady = true
  /** Anybody may read cluster-info. */
  isOpen = true
  /** Of every answer. */
  status: number | undefined
  networking: object = { podSubnet: '10.7.0.0/16', serviceSubnet: '10.8.0.0/16', dnsDomain: 'example.test' }
  kubelet: object = { clusterDNS: ['10.8.0.10'], clusterDomain: 'example.test' }
  port = 0
  #server: Server | undefined

  get url(): string {
    return `https://127.0.0.1:${this.port}`
  }

  get caHash(): string {
    return authorityHash(this.authority.cert)
  }

  async start(pair = this.authority.issue({ usage: 'server', addresses: ['127.0.0.1'] })): Promise<this> {
    const asksForCertificates = { requestCert: true, rejectUnauthorized: false }
    const server = createServer({ ...pair, ...asksForCertificates }, async (request, answer) => {
      const parts: Buffer[] = []
      for await (const part of request) parts.push(part as Buffer)
      const asked = {
        ...{ path: request.url ?? '', method: request.method ?? '' },
        body: Buffer.concat(parts).toString(),
      }
      const isNamed = request.headers.authorization === `Bearer ${token.id}.${token.secret}`
      const { subject } = (request.socket as TLSSocket).getPeerCertificate()
      this.asked.push(`${request.url}${isNamed ? ' with the token' : ''}`)
      const [status, body] = this.more(asked) ?? this.#answer(asked, isNamed || subject !== undefined)
      answer.writeHead(this.status ?? status).end(typeof body === 'string' ? body : JSON.stringify(body))
    })
    server.listen(this.port, '127.0.0.1')
    await once(server, 'listening')
    this.port = (server.address() as AddressInfo).port
    this.#server = server
    onTestFinished(() => this.stop())
    return this
  }

  stop(): void {
    this.#server?.close()
    this.#server?.closeAllConnections()
  }

  #answer({ path, body }: { path: string; body: string }, isNamed: boolean): [number, object | string] {
    if (path === '/readyz') return [this.isReady ? 200 : 500, 'ok']
    if (path.endsWith('/kube-public/configmaps/cluster-info') && !this.isOpen) return [401, 'Unauthorized']
    if (path.endsWith('/kube-public/configmaps/cluster-info')) return [200, { data: this.#clusterInfo() }]
    if (!isNamed || !this.isTokenGood) return [401, 'Unauthorized']
    if (path === '/version') return [200, { gitVersion: this.version }]
    if (path.startsWith('/api/v1/nodes/')) return [this.nodes.has(path.slice(14)) ? 200 : 404, {}]
    if (path === csrPath) return [201, this.#ask(body)]
    const asked = this.requests.get(path.slice(csrPath.length + 1))
    if (path.startsWith(csrPath) && asked !== undefined) return [200, { status: this.verdict(asked) }]
    const yaml = (value: object) => `# YAML\n${JSON.stringify(value)}`
    if (path.endsWith('/kubeadm-config'))
      return [200, { data: { ClusterConfiguration: yaml({ networking: this.networking }) } }]
    if (path.endsWith('/kubelet-config')) return [200, { data: { kubelet: yaml(this.kubelet) } }]
    return [404, 'not found']
  }

  #ask(body: string): object {
    const name = `node-csr-${this.requests.size}`
    const { spec } = JSON.parse(body) as { spec: { request: string } }
    this.requests.set(name, Buffer.from(spec.request, 'base64').toString())
    return { metadata: { name } }
  }

  #clusterInfo(): Record<string, string> {
    const bundle = Buffer.from(this.bundle()).toString('base64')
    const kubeconfig = `apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: ${bundle}\n    server: ${this.url}\n  name: ""\n`
    if (this.signer === undefined) return { kubeconfig }
    const header = Buffer.from(JSON.stringify(this.header)).toString('base64url')
    const signature = createHmac('sha256', this.signer.secret)
      .update(`${header}.${Buffer.from(kubeconfig).toString('base64url')}`)
      .digest('base64url')
    return { kubeconfig, [`jws-kubeconfig-${this.signer.id}`]: `${header}..${signature}` }
  }
}
