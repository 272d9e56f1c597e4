import { mkdtempDisposableSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { loadAnyConfig } from '../../../src/config/load.ts'
import { everyRole, type PresentRole, presentRoles, roles } from '../../../src/config/roles.ts'
import { schema } from '../../../src/config/schema.ts'
import { flagsOf, testHost } from './given.ts'

interface Given {
  readonly flags?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly file?: string
  /** That of the command. */
  readonly role?: PresentRole
}

async function load({ flags = [], environment = {}, file = '', role }: Given) {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-roles-'))
  const path = join(directory.path, 'config.yaml')
  writeFileSync(path, file)
  const given = { K8S_CONFIG: path, K8S_DATA_DIR: directory.path, ...environment }
  return await loadAnyConfig({ flags: flagsOf(flags), environment: given, host: testHost, role }).catch(
    (error: Error) => {
      error.message = error.message.replaceAll(directory.path, 'DIR')
      throw error
    },
  )
}

describe('the role', () => {
  test.each<[string, Given]>([
    ['a flag', { flags: ['--role=datastore'] }],
    ['the environment', { environment: { K8S_ROLE: 'datastore' } }],
    ['the file', { file: 'role: datastore\n' }],
    ['the command', { role: 'datastore' }],
    ['the command, as the file says', { role: 'datastore', file: 'role: datastore\n' }],
  ])('of a datastore comes from %s', async (_, given) => {
    expect(await load(given)).toMatchObject({
      role: 'datastore',
      listenAddress: { host: '127.0.0.1', port: 2379 },
      autoCompactionRetention: 600_000,
    })
  })

  test('is that of a server without a word', async () => {
    expect(await load({})).toMatchObject({ role: 'server', nodeName: 'worker-1' })
  })

  test('gives a configuration its own settings alone', async () => {
    const config = await load({ role: 'datastore' })
    expect(Object.keys(config)).not.toContain('clusterCidr')
    expect(Object.keys(await load({}))).not.toContain('listenAddress')
  })

  test.each(
    Object.entries(roles)
      .filter(([, { isThere }]) => !isThere)
      .map(([name]) => name),
  )('%s is refused until it is there', async (name) => {
    const error = await load({ flags: [`--role=${name}`] }).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'USAGE', message: expect.stringContaining('not there yet') })
  })
})

describe('refused', () => {
  test.each<[string, Given, string]>([
    [
      'a flag of another role',
      { flags: ['--listen-address=127.0.0.1:1'] },
      'cannot use --listen-address: a server has no such setting; leave it away, or choose the role datastore, which has it',
    ],
    [
      'a variable of another role',
      { role: 'datastore', environment: { K8S_CLUSTER_DNS: '10.96.0.10' } },
      'cannot use K8S_CLUSTER_DNS in the environment: a datastore has no such setting; leave it away, or choose the role server, which has it',
    ],
    [
      'a key of another role',
      { file: 'role: datastore\nkubelet-arg: max-pods=5\n' },
      'cannot use kubelet-arg in DIR/config.yaml:2: a datastore has no such setting; leave it away, or choose the role server or agent or kubelet, which has it',
    ],
    [
      'a key of another role that a flag hides',
      { file: 'v: 1\nlisten-address: 127.0.0.1:1\n', flags: ['--v=2'] },
      'cannot use listen-address in DIR/config.yaml:2: a server has no such setting; leave it away, or choose the role datastore, which has it',
    ],
    [
      'a command beside a setting that says otherwise',
      { role: 'server', environment: { K8S_ROLE: 'datastore' } },
      'cannot use K8S_ROLE=datastore in the environment: the command server is of another role; k8s without a command runs that of the settings',
    ],
    [
      'a misspelt role',
      { flags: ['--role=etcd'] },
      'cannot use --role=etcd: allowed is server, agent, kubelet or datastore',
    ],
    [
      'a part of the servers, of an agent',
      { role: 'agent', flags: ['--server=https://192.0.2.1:6443', '--disable=kube-proxy,metrics-server'] },
      'cannot use --disable=kube-proxy,metrics-server: metrics-server is a part of the servers; of an agent allowed are kube-proxy and network-policy',
    ],
    [
      'a certificate without its key',
      { role: 'datastore', flags: ['--cert-file=/x.crt'] },
      'cannot use --cert-file=/x.crt: it needs key-file beside it',
    ],
    [
      'a key without its certificate',
      { role: 'datastore', flags: ['--key-file=/x.key'] },
      'cannot use --key-file=/x.key: it needs cert-file beside it',
    ],
    [
      'authorities of clients without a certificate',
      { role: 'datastore', flags: ['--trusted-ca-file=/ca.crt'] },
      'cannot use --trusted-ca-file=/ca.crt: it needs cert-file and key-file beside it',
    ],
    [
      'TLS on a Unix socket',
      {
        role: 'datastore',
        flags: ['--listen-address=unix:///x.sock', '--cert-file=/x.crt', '--key-file=/x.key'],
      },
      'cannot use --cert-file=/x.crt: --listen-address=unix:///x.sock is a Unix socket, which has no TLS; leave the files away, or listen on HOST:PORT',
    ],
    [
      'client certificates without authorities',
      { role: 'datastore', flags: ['--client-cert-auth=true'] },
      'cannot use --client-cert-auth=true: it needs trusted-ca-file beside it',
    ],
    ...['0.0.0.0:1', '[::]:1', '192.0.2.1:1', 'datastore.example:1', '0:1'].map(
      (address): [string, Given, string] => [
        `a datastore for everybody at ${address}`,
        { role: 'datastore', flags: [`--listen-address=${address}`] },
        `cannot use --listen-address=${address}: other machines can reach it; give cert-file, key-file and trusted-ca-file, so that clients need a certificate, or insecure to serve everybody`,
      ],
    ),
    [
      'a datastore for everybody with TLS',
      {
        role: 'datastore',
        flags: ['--listen-address=0.0.0.0:1', '--cert-file=/x.crt', '--key-file=/x.key'],
      },
      'cannot use --listen-address=0.0.0.0:1: other machines can reach it; give cert-file, key-file and trusted-ca-file, so that clients need a certificate, or insecure to serve everybody',
    ],
    [
      'metrics for everybody',
      { role: 'datastore', flags: ['--metrics-address=0.0.0.0:1'] },
      'cannot use --metrics-address=0.0.0.0:1: other machines can reach it; give https:// with cert-file, key-file and trusted-ca-file, so that clients need a certificate, or insecure to serve everybody',
    ],
    [
      'metrics with TLS without a certificate',
      { role: 'datastore', flags: ['--metrics-address=https://127.0.0.1:1'] },
      'cannot use --metrics-address=https://127.0.0.1:1: https:// needs cert-file and key-file beside it',
    ],
    [
      'a URL that needs TLS where there is none',
      { role: 'datastore', flags: ['--advertise-client-urls=https://a:1'] },
      'cannot use --advertise-client-urls=https://a:1: https://a:1 does not work: there is no TLS without cert-file and key-file',
    ],
    ...[
      'http://0.0.0.0:1',
      'http://[::]:1',
      'http://a',
      'a:1',
      'http://a:1/x',
      'http://a:0',
      'http://A:1',
    ].map((url): [string, Given, string] => [
      `to send clients to ${url}`,
      { role: 'datastore', flags: [`--advertise-client-urls=http://b:1,${url}`] },
      `cannot use --advertise-client-urls=${url}: allowed is http://HOST:PORT or https://HOST:PORT, with a host that clients can go to and nothing after it`,
    ]),
  ])('%s', async (_, given, message) => {
    await expect(load(given)).rejects.toMatchObject({ code: 'USAGE', message })
  })
})

describe('a datastore', () => {
  const tls = ['--cert-file=/x.crt', '--key-file=/x.key', '--trusted-ca-file=/ca.crt']

  test.each<[string, string[]]>([
    ['loopback', ['--listen-address=127.0.0.2:1', '--metrics-address=[::1]:2']],
    ['loopback by its name', ['--listen-address=localhost:1']],
    ['everybody with client certificates', ['--listen-address=0.0.0.0:1', '--client-cert-auth=true', ...tls]],
    ['everybody with client certificates for metrics', [...tls, '--metrics-address=https://0.0.0.0:1']],
    [
      'everybody where that is meant',
      ['--listen-address=0.0.0.0:1', '--metrics-address=[::]:2', '--insecure=true'],
    ],
  ])('serves %s', async (_, flags) => {
    expect(await load({ role: 'datastore', flags })).toMatchObject({ role: 'datastore' })
  })
})

describe('every setting', () => {
  test.each(Object.entries(schema))('%s is for a role that there is', (_, row) => {
    expect(presentRoles(row.roles)).not.toEqual([])
    for (const name of row.roles) expect(everyRole).toContain(name)
  })
})
