import { createCipheriv, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { type Paths, paths as pathsOf } from '../../../src/config/paths.ts'
import { prepareSecrets } from '../../../src/pki/secrets.ts'
import { runCli } from '../cli/run-cli.ts'
import { type Fields, fieldsOf, message, temporaryDirectory } from '../datastore/support.ts'
import { commandEnvironment, methods, serve } from './support.ts'

/** What kine 0.16.4 left, after an hour in the life of some keys; compacted at 10, as `sqlite3 .dump` prints it. */
const dump = readFileSync(new URL('../../fixtures/kine-0.16.4.sql', import.meta.url), 'utf8')

function kineFile(further = ''): string {
  const path = join(temporaryDirectory(), 'state.db')
  const database = new Database(path)
  database.pragma('journal_mode = WAL')
  database.exec(dump)
  database.exec(further)
  database.close()
  return path
}

async function importKine(file: string, ...flags: string[]) {
  const paths = pathsOf({ dataDir: join(temporaryDirectory(), 'data') })
  const outcome = await runCli({
    args: ['db', 'import-kine', file, `--data-dir=${paths.dataDir}`, ...flags],
    environment: commandEnvironment(),
  })
  return { paths, ...outcome }
}

interface KeyState {
  readonly key: string
  readonly value: string
  readonly create: number
  readonly mod: number
  readonly version: number
}

/** All keys at a revision (0: now), as a client of the imported datastore sees them. */
async function statesOf(paths: Paths, revision = 0): Promise<{ revision: number; keys: KeyState[] }> {
  const { client, datastore } = await serve(paths)
  const reply = fieldsOf(await client.unary(methods.range, message({ 1: '\0', 2: '\0', 4: revision })))
  await datastore.stop()
  const header = fieldsOf(reply.get(1)?.[0] as Buffer)
  const keys = (reply.get(2) ?? []).map((kv) => stateOf(fieldsOf(kv as Buffer)))
  return { revision: Number(header.get(3)?.[0]), keys }
}

function stateOf(kv: Fields): KeyState {
  const number = (field: number) => Number(kv.get(field)?.[0])
  return {
    key: String(kv.get(1)?.[0]),
    value: String(kv.get(5)?.[0]),
    create: number(2),
    mod: number(3),
    version: number(4),
  }
}

const pods = '/registry/pods/default'

describe('a database of kine', () => {
  test('is taken over with its revisions and its history', async () => {
    const { paths, code, stdout } = await importKine(kineFile())
    expect(code).toBe(0)
    expect(stdout).toMatch(
      /has 8 keys and 1 leases at revision 18\.\nLeft out, as k3s' own: \/bootstrap\/0a1b2c\.\n/,
    )
    expect(readdirSync(paths.databaseDir).filter((name) => !name.includes('.lock'))).toEqual(['state.db'])
    expect(await statesOf(paths)).toEqual({
      revision: 18,
      keys: [
        { key: '/registry/events/default/e', value: 'one', create: 10, mod: 10, version: 1 },
        { key: '/registry/health', value: '{"health":"true"}', create: 2, mod: 2, version: 1 },
        { key: `${pods}/a`, value: 'three', create: 3, mod: 11, version: 3 },
        { key: `${pods}/b`, value: 'third', create: 18, mod: 18, version: 1 },
        { key: `${pods}/c`, value: 'two', create: 12, mod: 15, version: 2 },
        { key: `${pods}/d`, value: 'one', create: 17, mod: 17, version: 1 },
        { key: '/registry/secrets/default/s', value: 'plain', create: 8, mod: 8, version: 1 },
        // As kine's clients know it; kine's own row of that name stays behind.
        { key: 'compact_rev_key', value: '5', create: 13, mod: 14, version: 2 },
      ],
    })
    const before = await statesOf(paths, 16)
    expect(before.keys.filter(({ key }) => key.startsWith(`${pods}/`)).map(({ key }) => key)).toEqual([
      `${pods}/a`,
      `${pods}/c`,
    ])
    await expect(statesOf(paths, 9)).rejects.toThrow(/has been compacted/)
  })

  test('never goes back: revisions of what was left out are not given again', async () => {
    const last = "INSERT INTO kine VALUES(30,'/bootstrap/0a1b2c',0,0,9,9,0,X'00',NULL)"
    const { paths } = await importKine(kineFile(last))
    expect((await statesOf(paths)).revision).toBe(30)
  })

  test('with a gap in its history is compacted behind it', async () => {
    const { paths, code } = await importKine(kineFile('DELETE FROM kine WHERE id = 12'))
    expect(code).toBe(0)
    expect((await statesOf(paths)).keys).toContainEqual({
      ...{ key: `${pods}/c`, value: 'two' },
      ...{ create: 12, mod: 15, version: 2 },
    })
    await expect(statesOf(paths, 14)).rejects.toThrow(/has been compacted/)
  })
})

describe('bad input', () => {
  test('what is no database of kine is refused, and nothing is made of it', async () => {
    const file = join(temporaryDirectory(), 'notes')
    writeFileSync(file, 'x'.repeat(5000))
    for (const [path, reason] of [
      [file, /cannot read kine's database .*notes: file is not a database/],
      ['/nowhere/state.db', /cannot read kine's database \/nowhere\/state\.db: /],
      [kineFile('DROP TABLE kine'), /it has no table kine/],
    ] as const) {
      const { code, stderr, paths } = await importKine(path)
      expect(code).toBe(1)
      expect(stderr).toMatch(reason)
      expect(existsSync(paths.database)).toBe(false)
    }
  })

  test('a datastore that is there is not replaced', async () => {
    const { paths } = await importKine(kineFile())
    const again = await runCli({
      args: ['db', 'import-kine', kineFile(), `--data-dir=${paths.dataDir}`],
      environment: commandEnvironment(),
    })
    expect(again.code).toBe(1)
    expect(again.stderr).toMatch(
      /cannot import: there is a datastore already in .*state\.db\. Name another --data-dir/,
    )
  })
})

describe('Secrets that k3s has encrypted', () => {
  const key = randomBytes(32)
  const name = '/registry/secrets/default/encrypted'

  function encrypted(): string {
    const iv = randomBytes(16)
    const cipher = createCipheriv('aes-256-cbc', key, iv)
    const value = Buffer.concat([
      Buffer.from('k8s:enc:aescbc:v1:aescbckey:'),
      iv,
      cipher.update('secret'),
      cipher.final(),
    ])
    return `INSERT INTO kine VALUES(40,'${name}',1,0,0,0,0,X'${value.toString('hex')}',NULL)`
  }

  /** As k3s writes it: pkg/secretsencrypt. */
  function configuration(keyName: string, secret: Buffer): string {
    const path = join(temporaryDirectory(), 'encryption-config.json')
    const keys = [{ name: keyName, secret: secret.toString('base64') }]
    writeFileSync(
      path,
      JSON.stringify({
        kind: 'EncryptionConfiguration',
        apiVersion: 'apiserver.config.k8s.io/v1',
        resources: [{ resources: ['secrets'], providers: [{ aescbc: { keys } }, { identity: {} }] }],
      }),
    )
    return path
  }

  test('want their configuration, by name', async () => {
    const { code, stderr, paths } = await importKine(kineFile(encrypted()))
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /values are encrypted \(1 with the key aescbckey of aescbc\)\. Name the encryption configuration with --encryption-config; k3s keeps it in server\/cred\/encryption-config\.json/,
    )
    expect(existsSync(paths.database)).toBe(false)
  })

  test.each([
    [
      'another key',
      () => configuration('other', key),
      /has no key aescbckey of aescbc, with which 1 values are encrypted/,
    ],
    [
      'a wrong key',
      () => configuration('aescbckey', randomBytes(32)),
      /is not the one with which \/registry\/secrets\/default\/encrypted is/,
    ],
    ['another file', () => kineFile(), /cannot use .*state\.db/],
  ])('are refused with %s', async (_, config, reason) => {
    const { code, stderr, paths } = await importKine(kineFile(encrypted()), `--encryption-config=${config()}`)
    expect(code).toBe(1)
    expect(stderr).toMatch(reason)
    expect(existsSync(paths.database)).toBe(false)
    expect(existsSync(paths.pkiDir)).toBe(false)
  })

  test('are kept as they are, and their keys become those of the cluster', async () => {
    const file = configuration('aescbckey', key)
    const { code, paths } = await importKine(kineFile(encrypted()), `--encryption-config=${file}`)
    expect(code).toBe(0)
    const { keys } = await statesOf(paths)
    expect(keys.find((state) => state.key === name)?.value).toMatch(/^k8s:enc:aescbc:v1:aescbckey:/)
    const path = join(paths.pkiDir, 'encryption-config.yaml')
    const config = parse(readFileSync(path, 'utf8')) as { resources: { providers: object[] }[] }
    expect(config.resources[0]?.providers.map((provider) => Object.keys(provider)[0])).toEqual([
      'secretbox',
      'aescbc',
      'identity',
    ])
    // The daemon's start takes the file as it is.
    mkdirSync(paths.pkiDir, { recursive: true })
    await prepareSecrets({ dir: paths.pkiDir, mayCreate: true })
    expect(parse(readFileSync(path, 'utf8'))).toEqual(config)
  })

  test('are not taken over into a cluster that encrypts already', async () => {
    const dataDir = temporaryDirectory()
    const { pkiDir, database } = pathsOf({ dataDir })
    mkdirSync(pkiDir)
    writeFileSync(join(pkiDir, 'encryption-config.yaml'), 'kind: EncryptionConfiguration\n')
    const { code, stderr } = await runCli({
      args: [
        'db',
        'import-kine',
        kineFile(),
        `--data-dir=${dataDir}`,
        `--encryption-config=${configuration('k', key)}`,
      ],
      environment: commandEnvironment(),
    })
    expect(code).toBe(1)
    expect(stderr).toMatch(/this cluster has an encryption configuration already/)
    expect(existsSync(database)).toBe(false)
  })
})
