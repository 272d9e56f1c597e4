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
    const flag = name === 'ha' ? '--server-mode=ha' : `--role=${name}`
    const error = await load({ flags: [flag] }).catch((thrown: unknown) => thrown)
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
      'cannot use kubelet-arg in DIR/config.yaml:2: a datastore has no such setting; leave it away, or choose the role server, which has it',
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
    ['a misspelt role', { flags: ['--role=etcd'] }, 'cannot use --role=etcd: allowed is server or datastore'],
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
  ])('%s', async (_, given, message) => {
    await expect(load(given)).rejects.toMatchObject({ code: 'USAGE', message })
  })
})

describe('every setting', () => {
  test.each(Object.entries(schema))('%s is for a role that there is', (_, row) => {
    expect(presentRoles(row.roles)).not.toEqual([])
    for (const name of row.roles) expect(everyRole).toContain(name)
  })
})
