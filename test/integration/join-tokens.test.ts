import { createHmac, createPublicKey, X509Certificate } from 'node:crypto'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { authorityHash, parseToken } from '../../src/cluster/join/token.ts'
import {
  address,
  certificateRequest,
  dnsName,
  newKeys,
  nodeSubject,
  type RequestParts,
} from '../fixtures/certificate-request.ts'
import { type Cluster, defaultDataDir, startCluster } from './harness/cluster.ts'
import { requestInside } from './harness/http.ts'
import { readKubeconfig } from './harness/kubeconfig.ts'
import { reportFailures } from './harness/report.ts'

/*
 * What who has a join token, and who has joined, can do in a cluster: without a second machine, as only the API server is
 * asked.
 */

const clusterInfo = '/api/v1/namespaces/kube-public/configmaps/cluster-info'
const secretPattern = /[a-z0-9]{6}\.[a-z0-9]{16}/

const signers = {
  client: 'kubernetes.io/kube-apiserver-client-kubelet',
  serving: 'kubernetes.io/kubelet-serving',
}
const usages = {
  client: ['digital signature', 'client auth'],
  serving: ['digital signature', 'server auth'],
}
const serverAuth = '1.3.6.1.5.5.7.3.1'
const clientAuth = '1.3.6.1.5.5.7.3.2'

let cluster: Cluster
let node: string
let nodeIp: string
let server: string
let ca: string
let token: string

beforeAll(async () => {
  cluster = await startCluster({ name: 'tokens' })
  node = (await cluster.exec(['hostname'])).stdout.trim()
  const { status } = await cluster.get<{ status: { addresses: { type: string; address: string }[] } }>(
    'node',
    node,
  )
  nodeIp = status.addresses.find(({ type }) => type === 'InternalIP')?.address ?? ''
  const admin = readKubeconfig(cluster.machine.read(`${defaultDataDir}/admin.kubeconfig`))
  server = admin.server
  ca = admin.identity.ca
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

test('without a token there is nothing to join by', async () => {
  expect(await anonymous(clusterInfo)).toBe(403)
  expect(await anonymous('/api/v1/namespaces/kube-public/configmaps')).toBe(401)
  expect(await anonymous('/version')).toBe(401)
  const { stdout } = await cluster.k8s(['token', 'list'])
  expect(stdout).toBe('There are no tokens.\n')
  const maps = await cluster.kubectl(['get', 'configmap', '-A', '-o', 'name'])
  expect(maps.stdout).not.toMatch(/cluster-info|kubeadm-config|kubelet-config/)
})

test('certificates of servers are for servers alone, and those of clients for clients', () => {
  const directory = cluster.machine.path(`${defaultDataDir}/pki`)
  const leaves = readdirSync(directory).filter((name) => name.endsWith('.crt') && !name.endsWith('-ca.crt'))
  expect(leaves.length).toBeGreaterThan(8)
  for (const name of leaves) {
    const { keyUsage } = new X509Certificate(cluster.machine.read(`${defaultDataDir}/pki/${name}`))
    expect(keyUsage, name).toEqual([name.endsWith('-client.crt') ? clientAuth : serverAuth])
  }
})

test('a token is made, shown without its secret, and opens cluster-info, which it signs', async () => {
  const refused = await cluster.k8s(['token', 'create', '--role=server'], { check: false })
  expect(refused).toMatchObject({ exitCode: 2, stdout: '' })
  expect(refused.stderr).toMatch(
    /cannot make a token for servers: .*that of one server alone.*k8s migrate --to=ha/s,
  )

  const made = await cluster.k8s([
    'token',
    'create',
    '--ttl=1h',
    '--description=rack 7',
    '--print-join-command',
  ])
  const [, url = '', word = ''] = /^k8s agent --server=(\S+) --token=(\S+)\n$/.exec(made.stdout) ?? []
  expect(url).toBe(`https://${nodeIp}:6443`)
  expect(made.stderr).toMatch(/--token-file=FILE/)
  const parsed = parseToken(word)
  expect(parsed).toMatchObject({ role: 'agent', caHash: authorityHash(ca) })
  token = `${parsed.id}.${parsed.secret}`

  const table = await cluster.k8s(['token', 'list'])
  expect(table.stdout).toMatch(new RegExp(`^${parsed.id} +agent +\\S+Z +rack 7$`, 'm'))
  const json = await cluster.k8s(['token', 'list', '-o', 'json'])
  expect(JSON.parse(json.stdout)).toMatchObject({
    tokens: [{ id: parsed.id, role: 'agent', description: 'rack 7' }],
  })
  expect(table.stdout + json.stdout).not.toContain(parsed.secret)

  const info = await cluster.waitFor('cluster-info is signed', async () => {
    const [answer] = await requestInside(cluster.machine, [{ url: server + clusterInfo, ca }])
    if (answer?.status !== 200) return undefined
    const { data } = JSON.parse(answer.body) as { data: Record<string, string> }
    return data[`jws-kubeconfig-${parsed.id}`] === undefined ? undefined : data
  })
  const { kubeconfig = '', [`jws-kubeconfig-${parsed.id}`]: signature = '' } = info
  // RFC 7515, appendix F: the payload is not in it.
  const [header = '', , mac = ''] = signature.split('.')
  const signed = `${header}.${Buffer.from(kubeconfig).toString('base64url')}`
  expect(createHmac('sha256', parsed.secret).update(signed).digest('base64url')).toBe(mac)
  const bundle = Buffer.from(
    /certificate-authority-data: "?([\w+/=]+)/.exec(kubeconfig)?.[1] ?? '',
    'base64',
  ).toString()
  expect(bundle).toBe(['server', 'client'].map((name) => pki(`${name}-ca.crt`)).join(''))
  expect(kubeconfig).toContain(url)
  expect(await anonymous('/api/v1/namespaces/kube-public/configmaps')).toBe(401)
})

test('who has a token reads what is for joiners, and nothing else', async () => {
  asBootstrapper(token)
  for (const name of ['kubeadm-config', 'kubelet-config'])
    await bootstrapper(['get', 'configmap', '-n', 'kube-system', name])
  for (const what of ['secrets', 'configmaps', 'pods', 'serviceaccounts']) {
    const { exitCode, stderr } = await bootstrapper(['get', what, '-n', 'kube-system'], { check: false })
    expect({ what, exitCode, isForbidden: stderr.includes('Forbidden') }).toEqual({
      ...{ what, exitCode: 1, isForbidden: true },
    })
  }
})

test('a bootstrapper gets the certificate of a free name, and the name is that of nobody else from then on', async () => {
  const keys = newKeys()
  const issued = await ask('free', 'client', { subject: nodeSubject('agent-1'), keys })
  const certificate = new X509Certificate(issued.certificate)
  expect(certificate.keyUsage).toEqual([clientAuth])
  expect(certificate.verify(createPublicKey(pki('client-ca.crt')))).toBe(true)
  // The same key may ask again, as after a crash.
  await ask('free-again', 'client', { subject: nodeSubject('agent-1'), keys })
  expect(await denied('second-key', 'client', { subject: nodeSubject('agent-1') })).toMatch(
    /^the name agent-1 is in use: another key was approved for it, whose Node has not come yet; .* forget it \(kubectl /,
  )
  becomeNode(
    'agent-1',
    issued.certificate,
    keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  )
  await nodeKubectl(['create', '-f', '-'], {
    stdin: JSON.stringify({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'agent-1' } }),
  })
  expect(await denied('third-key', 'client', { subject: nodeSubject('agent-1') })).toMatch(
    /^the name agent-1 is in use by a Node; /,
  )
  expect(await denied('server-name', 'client', { subject: nodeSubject(node) })).toMatch(
    /is that of a server or a Service/,
  )
})

test.for<[string, RequestParts, string[] | undefined, RegExp]>([
  [
    'masters',
    {
      subject: [
        ['O', 'system:masters'],
        ['CN', 'system:node:x'],
      ],
    },
    undefined,
    /^the subject is not that of a Node/,
  ],
  [
    'both',
    { subject: [['O', 'system:masters'], ...nodeSubject('x')] },
    undefined,
    /^the subject is not that of a Node/,
  ],
  [
    'user',
    {
      subject: [
        ['O', 'system:nodes'],
        ['CN', 'admin'],
      ],
    },
    undefined,
    /^the subject is not that of a Node/,
  ],
  [
    'service',
    { subject: nodeSubject('kubernetes.default.svc') },
    undefined,
    /is that of a server or a Service/,
  ],
  [
    'names',
    { subject: nodeSubject('x'), alternatives: [dnsName('x')] },
    undefined,
    /^a client has no DNS names/,
  ],
  [
    'extension',
    { subject: nodeSubject('x'), extensions: ['2.5.29.19'] },
    undefined,
    /extensions beside its alternative names/,
  ],
  ['usages', { subject: nodeSubject('x') }, [...usages.client, 'server auth'], /^the usages are /],
])('a bootstrapper does not get what no kubelet asks for: %s', async ([name, parts, wanted, reason]) => {
  expect(await denied(name, 'client', parts, wanted)).toMatch(reason)
})

test('a Node gets the certificate of its own server, for its own addresses', async () => {
  const subject = nodeSubject('agent-1')
  await reportAddresses('10.89.0.77', nodeIp, '10.96.0.1')
  const issued = await askAsNode('serving', 'serving', {
    subject,
    alternatives: [dnsName('agent-1'), address('10.89.0.77')],
  })
  const certificate = new X509Certificate(issued.certificate)
  expect(certificate.keyUsage).toEqual([serverAuth])
  expect(certificate.verify(createPublicKey(pki('server-ca.crt')))).toBe(true)
  const foreign: [string, RequestParts, RegExp][] = [
    ['serving-server', { subject, alternatives: [address(nodeIp)] }, /^the address \S+ is an API server's/],
    ['serving-service', { subject, alternatives: [address('10.96.0.1')] }, /is in the range of Services/],
    ['serving-loopback', { subject, alternatives: [address('127.0.0.1')] }, /is no address of one Node/],
    ['serving-name', { subject, alternatives: [dnsName('kubernetes')] }, /is not that of the Node, agent-1/],
  ]
  for (const [name, parts, reason] of foreign)
    expect(await deniedAsNode(name, 'serving', parts), name).toMatch(reason)
  // Kubernetes itself lets no Node ask for another.
  const other = { subject: nodeSubject(node), alternatives: [dnsName(node)] }
  await expect(send(nodeKubectl, 'serving-other', 'serving', other)).rejects.toThrow(
    /can only create a node CSR/,
  )
  // One that the Node may still report is waited for.
  expect(
    await deniedAsNode('serving-unknown', 'serving', { subject, alternatives: [address('10.89.0.78')] }),
  ).toMatch(/^the address 10.89.0.78 is not one of the Node agent-1/)
})

test('a Node renews its certificate, sees Services, and reads no Secret', async () => {
  await askAsNode('renewal', 'client', { subject: nodeSubject('agent-1') })
  await nodeKubectl(['get', 'services', '-A'])
  await nodeKubectl(['get', 'endpointslices', '-A'])
  await nodeKubectl(['get', 'configmap', '-n', 'kube-system', 'kubelet-config'])
  const { exitCode } = await nodeKubectl(['get', 'secrets', '-A'], { check: false })
  expect(exitCode).toBe(1)
})

test('what was denied is told where users look', async () => {
  const { stdout } = await cluster.kubectl(['describe', 'csr', 'second-key'])
  expect(stdout).toMatch(/Denied/)
  expect(stdout).toMatch(/NameInUse .*the name agent-1 is in use/)
})

test('a flood of requests is kept within bounds, and keeps nobody from joining', async () => {
  const flood = Array.from({ length: 520 }, (_, index) => ({
    ...{ apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest' },
    metadata: { name: `a-flood-${index}` },
    spec: {
      request: Buffer.from(certificateRequest({ subject: [['CN', 'flood']] })).toString('base64'),
      ...{ signerName: index % 2 === 0 ? signers.client : 'example.com/any', usages: usages.client },
    },
  }))
  const list = { apiVersion: 'v1', kind: 'List', items: flood }
  await bootstrapper(['create', '-f', '-'], { stdin: JSON.stringify(list) })
  const { certificate } = await ask('in-the-flood', 'client', { subject: nodeSubject('agent-2') })
  expect(certificate).toContain('BEGIN CERTIFICATE')
  await cluster.waitFor('the flood is gone', async () => {
    const { stdout } = await cluster.kubectl(['get', 'csr', '--no-headers'])
    const asked = stdout.split('\n').filter((line) => line.includes('system:bootstrap:'))
    const refused = asked.filter((line) => !line.includes('Approved'))
    return (
      refused.length <= 500 &&
      refused.every((line) => line.includes('example.com/any') || line.includes('Denied'))
    )
  })
})

test('a Node that was removed makes its name free', async () => {
  await cluster.kubectl(['delete', 'node', 'agent-1'])
  const { certificate } = await ask('free-name', 'client', { subject: nodeSubject('agent-1') })
  expect(certificate).toContain('BEGIN CERTIFICATE')
})

test.for<[string, Record<string, string>]>([
  ['that has expired', { expiration: '2026-01-01T00:00:00Z' }],
  ['of masters', { 'auth-extra-groups': 'system:masters' }],
  ['of another ID than its own', { 'token-id': 'abcdef' }],
])('a token %s is refused', async ([, data]) => {
  const [id, secret] = ['refuse', '0123456789abcdef']
  const name = `bootstrap-token-${id}`
  await cluster.apply({
    ...{ apiVersion: 'v1', kind: 'Secret', type: 'bootstrap.kubernetes.io/token' },
    metadata: { name, namespace: 'kube-system' },
    stringData: {
      ...{ 'token-id': id, 'token-secret': secret },
      ...{ 'usage-bootstrap-authentication': 'true', 'usage-bootstrap-signing': 'true' },
      ...{ 'auth-extra-groups': 'system:bootstrappers:kubeadm:default-node-token', ...data },
    },
  })
  asBootstrapper(`${id}.${secret}`)
  const { exitCode, stderr } = await bootstrapper(['get', 'csr'], { check: false })
  expect(exitCode).toBe(1)
  expect(stderr).toMatch(/Unauthorized|must be logged in/)
  await cluster.kubectl(['delete', 'secret', '-n', 'kube-system', '--ignore-not-found', name])
})

test('with its last token the cluster is closed, and the token is of no use', async () => {
  const id = token.slice(0, 6)
  expect((await cluster.k8s(['token', 'delete', id])).stdout).toBe(`deleted ${id}\n`)
  const again = await cluster.k8s(['token', 'delete', id], { check: false })
  expect(again).toMatchObject({ exitCode: 1 })
  expect(again.stderr).toMatch(/there is none of that ID/)
  await cluster.waitFor('cluster-info is closed', async () => (await anonymous(clusterInfo)) === 403)
  asBootstrapper(token)
  await cluster.waitFor('the token is refused', async () => {
    const { exitCode, stderr } = await bootstrapper(['get', 'csr'], { check: false })
    return exitCode === 1 && /Unauthorized|must be logged in/.test(stderr)
  })
  expect(cluster.daemon.log()).not.toMatch(secretPattern)
  // What those who have joined need stays.
  await cluster.kubectl(['get', 'clusterrolebinding', 'k8s:node-proxier'])
})

const bootstrapConfig = '/tmp/bootstrap.kubeconfig'
const nodeConfig = '/tmp/node.kubeconfig'

function asBootstrapper(bearer: string): void {
  writeKubeconfig(bootstrapConfig, { token: bearer })
}

function becomeNode(name: string, certificate: string, key: string): void {
  expect(new X509Certificate(certificate).subject).toContain(`system:node:${name}`)
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  writeKubeconfig(nodeConfig, {
    'client-certificate-data': base64(certificate),
    'client-key-data': base64(key),
  })
}

function writeKubeconfig(path: string, user: object): void {
  const file = cluster.machine.path(path)
  const text = JSON.stringify({
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'x' },
    clusters: [
      { name: 'x', cluster: { server, 'certificate-authority-data': Buffer.from(ca).toString('base64') } },
    ],
    users: [{ name: 'x', user }],
    contexts: [{ name: 'x', context: { cluster: 'x', user: 'x' } }],
  })
  mkdirSync(cluster.machine.path('/tmp'), { recursive: true })
  writeFileSync(file, text, { mode: 0o600 })
}

type Kubectl = Cluster['kubectl']

const bootstrapper: Kubectl = (given, options) =>
  cluster.kubectl([`--kubeconfig=${bootstrapConfig}`, ...given], options)
const nodeKubectl: Kubectl = (given, options) =>
  cluster.kubectl([`--kubeconfig=${nodeConfig}`, ...given], options)

async function anonymous(path: string): Promise<number | undefined> {
  const [answer] = await requestInside(cluster.machine, [{ url: server + path, ca }])
  return answer?.status
}

function pki(name: string): string {
  return cluster.machine.read(`${defaultDataDir}/pki/${name}`)
}

interface SigningRequest {
  readonly status?: {
    readonly certificate?: string
    readonly conditions?: readonly { type: string; message: string }[]
  }
}

type Kind = keyof typeof signers

async function send(
  as: Kubectl,
  name: string,
  kind: Kind,
  parts: RequestParts,
  wanted = usages[kind],
): Promise<void> {
  const manifest = {
    ...{ apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', metadata: { name } },
    spec: {
      request: Buffer.from(certificateRequest(parts)).toString('base64'),
      ...{ signerName: signers[kind], usages: wanted },
    },
  }
  await as(['create', '-f', '-'], { stdin: JSON.stringify(manifest) })
}

async function issued(name: string): Promise<{ certificate: string }> {
  return cluster.waitFor(`${name} is issued`, async () => {
    const { status } = await cluster.get<SigningRequest>('csr', name)
    const denial = status?.conditions?.find(({ type }) => type !== 'Approved')
    expect(denial).toBeUndefined()
    return (
      status?.certificate !== undefined && {
        certificate: Buffer.from(status.certificate, 'base64').toString(),
      }
    )
  })
}

async function denial(name: string): Promise<string> {
  return cluster.waitFor(`${name} is denied`, async () => {
    const { status } = await cluster.get<SigningRequest>('csr', name)
    expect(status?.conditions?.find(({ type }) => type === 'Approved')).toBeUndefined()
    return status?.conditions?.find(({ type }) => type === 'Denied')?.message
  })
}

async function ask(name: string, kind: Kind, parts: RequestParts) {
  await send(bootstrapper, name, kind, parts)
  return issued(name)
}

async function denied(name: string, kind: Kind, parts: RequestParts, wanted?: string[]) {
  await send(bootstrapper, name, kind, parts, wanted)
  return denial(name)
}

async function askAsNode(name: string, kind: Kind, parts: RequestParts) {
  await send(nodeKubectl, name, kind, parts)
  return issued(name)
}

async function deniedAsNode(name: string, kind: Kind, parts: RequestParts) {
  await send(nodeKubectl, name, kind, parts)
  return denial(name)
}

/** A kubelet reports what it likes. */
async function reportAddresses(...addresses: string[]): Promise<void> {
  const own = JSON.parse((await nodeKubectl(['get', 'node', 'agent-1', '-o', 'json'])).stdout) as {
    status: object
  }
  const status = { ...own.status, addresses: addresses.map((one) => ({ type: 'InternalIP', address: one })) }
  await nodeKubectl(['replace', '--raw', '/api/v1/nodes/agent-1/status', '-f', '-'], {
    stdin: JSON.stringify({ ...own, status }),
  })
}
