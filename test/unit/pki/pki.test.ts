import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { once } from 'node:events'
import { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { encodeName, issueCertificate, keyIdentifier } from '../../../src/pki/certificate.ts'
import { leafNames, type LeafName } from '../../../src/pki/leaves.ts'
import { bundleFiles } from '../../../src/pki/bundle.ts'
import { type PkiOptions, pkiFiles, preparePki, readIdentity } from '../../../src/pki/pki.ts'

const day = 86_400_000
const start = new Date('2026-11-21T10:00:00Z')
const after = (days: number) => new Date(start.getTime() + days * day)

let root: string
let options: PkiOptions

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'k8s-pki-'))
  options = {
    dir: join(root, 'pki'),
    nodeName: 'node-a',
    nodeIp: '192.0.2.10',
    advertiseAddress: '198.51.100.4',
    bindAddress: '0.0.0.0',
    serviceCidr: '10.96.0.0/12',
    clusterDomain: 'cluster.local',
    tlsSan: ['API.example.org', '2001:db8::7'],
    now: start,
  }
})

afterEach(() => rm(root, { recursive: true }))

const read = (path: string) => readFileSync(path, 'utf8')
const certificateOf = (name: LeafName) =>
  new X509Certificate(read(pkiFiles(options.dir).leaves[name].certFile))
const snapshot = () =>
  Object.fromEntries(readdirSync(options.dir).map((name) => [name, read(join(options.dir, name))]))

describe('the first call', () => {
  test('names what a Node has of both families, and of Services the address of the first one', async () => {
    await preparePki({ ...options, otherNodeIp: 'fd00::10', serviceCidr: '10.96.0.0/12,fd00:96::/112' })
    for (const address of ['192.0.2.10', 'fd00::10', '10.96.0.1'])
      expect(certificateOf('apiserver').checkIP(address)).toBe(address)
    for (const address of ['192.0.2.10', 'fd00::10'])
      expect(certificateOf('kubelet').checkIP(address)).toBe(address)
  })

  test('issues every certificate, each by its authority and for its use', async () => {
    const pki = await preparePki(options)
    expect(pki.renewed.map(({ name, reason }) => `${name}: ${reason}`)).toEqual(
      leafNames.map((name) => `${name}: it was missing`),
    )
    for (const name of leafNames) {
      const isServing = ['apiserver', 'controller-manager', 'scheduler', 'kubelet'].includes(name)
      const authority = isServing ? 'server' : name === 'front-proxy-client' ? 'requestHeader' : 'client'
      const certificate = certificateOf(name)
      const issuer = new X509Certificate(read(pki.authorities[authority].certFile))
      expect(certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey), name).toBe(true)
      expect(certificate.keyUsage, name).toEqual([isServing ? '1.3.6.1.5.5.7.3.1' : '1.3.6.1.5.5.7.3.2'])
      expect(certificate.ca, name).toBe(false)
    }
  })

  test('names every client with no more than it needs', async () => {
    await preparePki(options)
    const subjects = leafNames
      .filter((name) => name.endsWith('-client'))
      .map((name) => [name, certificateOf(name).subject])
    expect(Object.fromEntries(subjects)).toEqual({
      'admin-client': 'O=system:masters\nCN=k8s-admin',
      'apiserver-kubelet-client': 'CN=kube-apiserver-kubelet-client',
      'controller-manager-client': 'CN=system:kube-controller-manager',
      'front-proxy-client': 'CN=front-proxy-client',
      'kube-proxy-client': 'CN=system:kube-proxy',
      'kubelet-client': 'O=system:nodes\nCN=system:node:node-a',
      'scheduler-client': 'CN=system:kube-scheduler',
    })
  })

  test("gives the API server's certificate every name and address that clients come by", async () => {
    await preparePki({ ...options, bindAddress: '203.0.113.9' })
    expect(certificateOf('apiserver').subjectAltName?.split(', ')).toEqual([
      'DNS:kubernetes',
      'DNS:kubernetes.default',
      'DNS:kubernetes.default.svc',
      'DNS:kubernetes.default.svc.cluster.local',
      'DNS:localhost',
      'DNS:node-a',
      'DNS:api.example.org',
      'IP Address:127.0.0.1',
      'IP Address:0:0:0:0:0:0:0:1',
      'IP Address:10.96.0.1',
      'IP Address:192.0.2.10',
      'IP Address:198.51.100.4',
      'IP Address:203.0.113.9',
      'IP Address:2001:DB8:0:0:0:0:0:7',
    ])
  })

  test('lets only their owner read keys', async () => {
    await preparePki(options)
    expect(statSync(options.dir).mode & 0o777).toBe(0o700)
    for (const name of readdirSync(options.dir)) {
      const mode = /\.(crt|pub)$/.test(name) ? 0o644 : 0o600
      expect([name, statSync(join(options.dir, name)).mode & 0o777]).toEqual([name, mode])
    }
  })

  test('refuses a clock that was never set, and writes nothing', async () => {
    const now = new Date('1970-01-01T00:05:00Z')
    await expect(preparePki({ ...options, now })).rejects.toThrow(
      'cannot make certificates: the clock says 1970-01-01T00:05:00.000Z',
    )
    expect(readdirSync(options.dir)).toEqual([])
  })

  test('goes on where an interrupted one ended', async () => {
    const files = pkiFiles(options.dir)
    await preparePki(options)
    const kept = read(files.authorities.server.keyFile)
    for (const { certFile, keyFile } of Object.values(files.leaves)) {
      rmSync(certFile)
      rmSync(keyFile)
    }
    rmSync(files.authorities.client.certFile)
    rmSync(files.authorities.client.keyFile)
    rmSync(files.encryptionConfigFile)
    writeFileSync(join(options.dir, 'scheduler.key.123.tmp'), 'half a k')
    await preparePki(options)
    expect((await preparePki(options)).renewed).toEqual([])
    expect(read(files.authorities.server.keyFile)).toBe(kept)
    expect(existsSync(join(options.dir, 'scheduler.key.123.tmp'))).toBe(false)
  })
})

describe('a TLS handshake', () => {
  /** The name that the server gives its client, or why it would refuse it. */
  async function handshake(client: tls.ConnectionOptions): Promise<string> {
    const { authorities, leaves } = pkiFiles(options.dir)
    const server = tls.createServer({
      cert: read(leaves.apiserver.certFile),
      key: read(leaves.apiserver.keyFile),
      ca: read(authorities.client.certFile),
      requestCert: true,
      // Told apart below: else a refusal is only a connection that was reset.
      rejectUnauthorized: false,
    })
    const met = new Promise<string>((resolve) => {
      server.on('secureConnection', (socket) => {
        resolve(String(socket.authorizationError ?? socket.getPeerCertificate().subject.CN))
        socket.end()
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const socket = tls.connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port, ...client })
    const trusted = new Promise<boolean>((resolve) => {
      socket.on('secureConnect', () => resolve(socket.authorized))
      socket.on('error', () => resolve(false))
    })
    try {
      return (await trusted) ? await met : 'the server is not trusted'
    } finally {
      socket.destroy()
      server.close()
    }
  }

  test('shows each side who the other is', async () => {
    const pki = await preparePki({ ...options, now: new Date() })
    expect(await handshake(await readIdentity(pki, 'kube-proxy-client'))).toBe('system:kube-proxy')
  })

  test('fails with a certificate of another authority', async () => {
    const pki = await preparePki({ ...options, now: new Date() })
    const stranger = await readIdentity(pki, 'front-proxy-client')
    expect(await handshake(stranger)).toBe('UNABLE_TO_VERIFY_LEAF_SIGNATURE')
    const ca = read(pki.authorities.client.certFile)
    expect(await handshake({ ...stranger, ca })).toBe('the server is not trusted')
  })
})

describe('a later call', () => {
  test('changes nothing while everything fits', async () => {
    await preparePki(options)
    const before = snapshot()
    expect((await preparePki({ ...options, now: after(200) })).renewed).toEqual([])
    expect(snapshot()).toEqual(before)
  })

  test('renews what has less than a third of its life left, with new keys', async () => {
    await preparePki(options)
    const before = snapshot()
    const { renewed } = await preparePki({ ...options, now: after(250) })
    expect(renewed.map(({ name }) => name)).toEqual([...leafNames])
    expect(renewed[0]?.reason).toBe('it expires on 2027-11-21')
    for (const name of leafNames) expect(snapshot()[`${name}.key`]).not.toBe(before[`${name}.key`])
    expect(snapshot()['server-ca.crt']).toBe(before['server-ca.crt'])
    expect(certificateOf('admin-client').validToDate).toEqual(after(250 + 365))
  })

  test('still fits after the clock was put back', async () => {
    await preparePki({ ...options, now: after(250) })
    const [authority] = [new X509Certificate(read(pkiFiles(options.dir).authorities.server.certFile))]
    expect(certificateOf('apiserver').validFromDate).toEqual(authority.validFromDate)
  })

  test('does not renew for ever what ends with its authority', async () => {
    await preparePki(options)
    const { renewed } = await preparePki({ ...options, now: after(3500) })
    expect(renewed.length).toBe(leafNames.length)
    const { renewed: again, warnings } = await preparePki({ ...options, now: after(3600) })
    expect(again).toEqual([])
    expect(warnings).toContain('the server-ca expires on 2036-11-18')
  })

  test.each<{
    what: string
    change: () => Partial<PkiOptions> | void
    expected: Partial<Record<LeafName, string>>
  }>([
    {
      what: 'a new address',
      change: () => ({ nodeIp: '192.0.2.11' }),
      expected: { apiserver: 'its names changed', kubelet: 'its names changed' },
    },
    {
      what: 'a new node name',
      change: () => ({ nodeName: 'node-b' }),
      expected: {
        apiserver: 'its names changed',
        kubelet: 'its subject changed',
        'kubelet-client': 'its subject changed',
      },
    },
    {
      what: 'a new name to be reached by',
      change: () => ({ tlsSan: ['k8s.example.org'] }),
      expected: { apiserver: 'its names changed' },
    },
    {
      what: 'a damaged certificate',
      change: () => writeFileSync(join(options.dir, 'scheduler.crt'), '-----BEGIN CERTIFICATE-----\nMIIB'),
      expected: { scheduler: 'it was damaged' },
    },
    {
      what: 'an emptied key',
      change: () => writeFileSync(join(options.dir, 'scheduler.key'), ''),
      expected: { scheduler: 'it was damaged' },
    },
    {
      what: 'the key of another certificate',
      change: () => copyFileSync(join(options.dir, 'kubelet.key'), join(options.dir, 'scheduler.key')),
      expected: { scheduler: 'it was damaged' },
    },
    {
      what: 'a missing key',
      change: () => rmSync(join(options.dir, 'admin-client.key')),
      expected: { 'admin-client': 'it was missing' },
    },
    {
      what: 'a certificate for another use',
      change: () => {
        for (const end of ['crt', 'key']) {
          copyFileSync(
            join(options.dir, `front-proxy-client.${end}`),
            join(options.dir, `kube-proxy-client.${end}`),
          )
        }
      },
      expected: { 'kube-proxy-client': 'its authority changed' },
    },
  ])('issues anew what $what concerns', async ({ change, expected }) => {
    await preparePki(options)
    const changed = { ...options, ...change() }
    const { renewed } = await preparePki(changed)
    expect(Object.fromEntries(renewed.map(({ name, reason }) => [name, reason]))).toEqual(expected)
    expect((await preparePki(changed)).renewed).toEqual([])
  })

  test('takes permissions away that a copy added', async () => {
    await preparePki(options)
    const files = pkiFiles(options.dir)
    const keys = [
      files.authorities.server.keyFile,
      files.leaves.apiserver.keyFile,
      files.encryptionConfigFile,
    ]
    for (const path of keys) chmodSync(path, 0o644)
    chmodSync(options.dir, 0o755)
    await preparePki(options)
    for (const path of keys) expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(statSync(options.dir).mode & 0o777).toBe(0o700)
  })
})

describe('an authority', () => {
  function replaceServerAuthority(type: 'rsa' | 'ec') {
    const { publicKey, privateKey } =
      type === 'rsa'
        ? generateKeyPairSync('rsa', { modulusLength: 2048 })
        : generateKeyPairSync('ec', { namedCurve: 'P-384' })
    const subject = { commonName: 'Example Corp', organizations: ['Example'] }
    const certificate = issueCertificate({
      profile: { subject },
      publicKey,
      issuer: { privateKey, name: encodeName(subject), keyId: keyIdentifier(publicKey) },
      notBefore: start,
      notAfter: after(1000),
    })
    const files = pkiFiles(options.dir).authorities.server
    writeFileSync(files.certFile, certificate)
    writeFileSync(files.keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  }

  test.each(['rsa', 'ec'] as const)("of the user's own (%s) is used as it is", async (type) => {
    await preparePki(options)
    replaceServerAuthority(type)
    const { renewed } = await preparePki(options)
    expect(renewed.map(({ name, reason }) => [name, reason])).toEqual(
      ['apiserver', 'controller-manager', 'scheduler', 'kubelet'].map((name) => [
        name,
        'its authority changed',
      ]),
    )
    expect(certificateOf('apiserver').issuer).toBe('O=Example\nCN=Example Corp')
  })

  test('whose certificate is gone is made again from its key, the same one', async () => {
    await preparePki(options)
    rmSync(pkiFiles(options.dir).authorities.client.certFile)
    expect((await preparePki({ ...options, now: after(10) })).renewed).toEqual([])
  })

  test.each<{
    what: string
    damage: (paths: { certFile: string; keyFile: string }) => void
    message: RegExp
  }>([
    {
      what: 'without its key',
      damage: ({ keyFile }) => rmSync(keyFile),
      message: /client-ca\.key: its key is missing/,
    },
    {
      what: 'that is gone',
      damage: ({ certFile, keyFile }) => [certFile, keyFile].map((path) => rmSync(path)),
      message: /client-ca\.crt: it is missing/,
    },
    {
      what: 'with a damaged key',
      damage: ({ keyFile }) => writeFileSync(keyFile, 'x'),
      message: /client-ca\.key: it holds no private key/,
    },
    {
      what: 'with a damaged certificate',
      damage: ({ certFile }) => writeFileSync(certFile, 'x'),
      message: /client-ca\.crt: it holds no certificate/,
    },
    {
      what: 'with the key of another',
      damage: ({ keyFile }) => copyFileSync(join(options.dir, 'server-ca.key'), keyFile),
      message: /client-ca\.crt: its key is another one/,
    },
    {
      what: 'that is a leaf',
      damage: ({ certFile, keyFile }) => {
        copyFileSync(join(options.dir, 'kubelet.crt'), certFile)
        copyFileSync(join(options.dir, 'kubelet.key'), keyFile)
      },
      message: /it may not sign certificates/,
    },
  ])('$what is refused, and nothing is replaced', async ({ damage, message }) => {
    await preparePki(options)
    damage(pkiFiles(options.dir).authorities.client)
    const before = snapshot()
    await expect(preparePki(options)).rejects.toThrow(message)
    expect(snapshot()).toEqual(before)
  })

  test.each([
    { what: 'expired', now: after(1001) },
    { what: 'not valid yet', now: after(-15) },
  ])("of the user's own that is $what is refused with both dates", async ({ now }) => {
    await preparePki(options)
    replaceServerAuthority('ec')
    await expect(preparePki({ ...options, now })).rejects.toThrow(
      `it is valid from 2026-11-21T10:00:00.000Z to 2029-08-17T10:00:00.000Z, and the clock says ${now.toISOString()}`,
    )
  })

  test('that expired while the machine was off is made again from its key, and all that it signs', async () => {
    const { authorities } = await preparePki(options)
    const keys = Object.values(authorities).map(({ keyFile }) => read(keyFile))
    const { renewed } = await preparePki({ ...options, isNew: false, now: after(3700) })
    expect(renewed.map(({ name }) => name)).toEqual([
      'server-ca',
      'client-ca',
      'request-header-ca',
      ...leafNames,
    ])
    expect(renewed[0]?.reason).toBe('it expired on 2036-11-18')
    expect(Object.values(authorities).map(({ keyFile }) => read(keyFile))).toEqual(keys)
    expect((await preparePki({ ...options, now: after(3700) })).renewed).toEqual([])
  })

  test('and all that it signs is made for a clock that is put back, too: one that was years ahead at the start', async () => {
    await preparePki({ ...options, now: after(5000) })
    const { renewed } = await preparePki({ ...options, isNew: false })
    expect(renewed).toEqual([])
    expect(certificateOf('apiserver').validFromDate <= start).toBe(true)
  })

  test('that was made by a clock that was ahead is made again, and what it had signed', async () => {
    const { authorities } = await preparePki(options)
    // As earlier versions did, and as for a leaf that was issued by one.
    for (const [name, { certFile, keyFile }] of Object.entries(authorities)) {
      const { subject } = new X509Certificate(read(certFile))
      const privateKey = createPrivateKey(read(keyFile))
      const publicKey = createPublicKey(privateKey)
      const own = { commonName: subject.slice('CN='.length) }
      const issuer = { privateKey, name: encodeName(own), keyId: keyIdentifier(publicKey) }
      const validity = { notBefore: after(900), notAfter: after(4000) }
      writeFileSync(certFile, issueCertificate({ profile: { subject: own }, publicKey, issuer, ...validity }))
      if (name !== 'requestHeader') continue
      const leaf = createPublicKey(read(pkiFiles(options.dir).leaves['front-proxy-client'].keyFile))
      const profile = { subject: { commonName: 'front-proxy-client' }, usage: 'client' } as const
      writeFileSync(
        pkiFiles(options.dir).leaves['front-proxy-client'].certFile,
        issueCertificate({ profile, publicKey: leaf, issuer, ...validity }),
      )
    }
    const { renewed } = await preparePki({ ...options, isNew: false })
    expect(renewed).toEqual(
      ['server-ca', 'client-ca', 'request-header-ca', 'front-proxy-client'].map((name) => ({
        name,
        reason: 'it would be valid only from 2029-05-09 on',
      })),
    )
  })

  test('is not made again by a clock that was never set', async () => {
    await preparePki(options)
    const before = snapshot()
    const now = new Date('1970-01-01T00:05:00Z')
    await expect(preparePki({ ...options, now })).rejects.toThrow(
      'cannot make certificates: the clock says 1970',
    )
    expect(snapshot()).toEqual(before)
  })
})

describe('of a cluster that has been there', () => {
  /** As after a restore: the certificates of components are not in snapshots. */
  async function restored(): Promise<void> {
    const { leaves } = await preparePki(options)
    for (const { certFile, keyFile } of Object.values(leaves))
      for (const path of [certFile, keyFile]) rmSync(path)
  }

  test.each(
    bundleFiles('pki')
      .map(({ name }) => name)
      .filter((name) => !name.endsWith('.crt') && !name.endsWith('.pub')),
  )('nothing takes the place of %s', async (name) => {
    await restored()
    rmSync(join(options.dir, name))
    const before = snapshot()
    await expect(preparePki({ ...options, isNew: false })).rejects.toMatchObject({
      message: expect.stringContaining(join(options.dir, name)),
      remedy: expect.stringContaining('k8s snapshot restore'),
    })
    expect(snapshot()).toEqual(before)
  })

  test('nothing is made at all when the directory is gone', async () => {
    await restored()
    rmSync(options.dir, { recursive: true })
    await expect(preparePki({ ...options, isNew: false })).rejects.toThrow(/it is missing|cannot find/)
    expect(readdirSync(options.dir)).toEqual([])
  })

  test('certificates are issued anew by the same authorities', async () => {
    await restored()
    const { renewed } = await preparePki({ ...options, isNew: false })
    expect(renewed.map(({ name }) => name)).toEqual([...leafNames])
  })
})

describe('the secrets', () => {
  test('sign tokens with an elliptic key whose public half is beside it', async () => {
    const { serviceAccountPublicKeyFile } = await preparePki(options)
    expect(read(serviceAccountPublicKeyFile)).toMatch(
      /^-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE/,
    )
    rmSync(serviceAccountPublicKeyFile)
    await preparePki(options)
    expect(existsSync(serviceAccountPublicKeyFile)).toBe(true)
  })

  test.each(['serviceAccountKeyFile', 'encryptionConfigFile'] as const)(
    'are not made a second time: %s',
    async (file) => {
      const pki = await preparePki(options)
      rmSync(pki[file])
      await expect(preparePki(options)).rejects.toThrow(`cannot find ${pki[file]}`)
      expect(existsSync(pki[file])).toBe(false)
    },
  )

  test.each(['serviceAccountKeyFile', 'encryptionConfigFile'] as const)(
    'are refused when damaged: %s',
    async (file) => {
      const pki = await preparePki(options)
      writeFileSync(pki[file], '')
      await expect(preparePki(options)).rejects.toThrow(`cannot use ${pki[file]}`)
    },
  )

  test('an encryption key that the user added stays', async () => {
    const { encryptionConfigFile } = await preparePki(options)
    const changed = read(encryptionConfigFile).replace(
      'keys:',
      'keys:\n            - name: key-2\n              secret: AAAA',
    )
    writeFileSync(encryptionConfigFile, changed)
    await preparePki(options)
    expect(read(encryptionConfigFile)).toBe(changed)
  })
})
