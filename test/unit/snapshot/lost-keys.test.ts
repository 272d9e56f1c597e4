import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Paths } from '../../../src/config/paths.ts'
import { Loader } from '../../../src/datastore/log/load.ts'
import { refuseLostKeys } from '../../../src/snapshot/lost-keys.ts'
import { dataDirectory } from './support.ts'

/** A data directory with a database of these values, as an import leaves it. */
function imported(...values: string[]): Paths {
  const paths = dataDirectory()
  const loader = new Loader({ path: paths.database })
  for (const [index, value] of values.entries()) {
    const revision = index + 2
    const place = { revision, sub: 0, createRevision: revision, version: 1, lease: 0n }
    loader.version({ ...place, key: Buffer.from(`/registry/secrets/${index}`), value: Buffer.from(value) })
  }
  loader.finish({ compactedRevision: -1 })
  return paths
}

test('a database with encrypted values and without their key is refused', () => {
  const paths = imported('plain', 'k8s:enc:secretbox:v1:key-1:sealed')
  const file = join(paths.pkiDir, 'encryption-config.yaml')
  expect(() => refuseLostKeys(paths, undefined)).toThrow(
    `cannot start: values in the database are encrypted with the key key-1 of secretbox, and ${file} is missing`,
  )
  mkdirSync(paths.pkiDir, { recursive: true })
  writeFileSync(file, 'kind: EncryptionConfiguration\n')
  expect(() => refuseLostKeys(paths, undefined)).not.toThrow()
})

test('a new data directory, an empty database and one in the clear need no key', () => {
  const fresh = dataDirectory()
  expect(() => refuseLostKeys(fresh, undefined)).not.toThrow()
  writeFileSync(fresh.database, '')
  expect(() => refuseLostKeys(fresh, undefined)).not.toThrow()
  expect(() => refuseLostKeys(imported('plain', 'about k8s:enc:'), undefined)).not.toThrow()
})
