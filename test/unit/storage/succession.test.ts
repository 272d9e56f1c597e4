import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Member } from '../../../src/datastore/member.ts'
import { findSuccessor, keysDigest, succeed, successionKey } from '../../../src/storage/succession.ts'
import { dataDirectory, methods, writeKeys } from '../snapshot/support.ts'
import { message, RawClient, runDatastore, temporaryDirectory } from '../datastore/support.ts'

const own = 0x123n
const keys = 'digest'

test('each reset adds what it has replaced, once, and no more than what is worth remembering', () => {
  const first = succeed(undefined, { former: [own, undefined], keys })
  expect(JSON.parse(first)).toEqual({ former: ['123'], keys })
  expect(JSON.parse(succeed(first, { former: [own, 0x456n], keys: 'other' }))).toEqual({
    former: ['123', '456'],
    keys: 'other',
  })
  for (const broken of ['', 'null', '[]', '{"former":1,"keys":""}', '{'])
    expect(JSON.parse(succeed(broken, { former: [own], keys })).former).toEqual(['123'])
  const many = Array.from({ length: 80 }, (_, index) => BigInt(index + 1))
  expect(JSON.parse(succeed(undefined, { former: many, keys })).former).toHaveLength(50)
})

test('a successor is found among those that answer, and nobody else is taken for one', async () => {
  const serve = async (value: string | undefined) => {
    const { listening } = await runDatastore({ path: join(temporaryDirectory(), 'state.db') })
    if (value !== undefined)
      await new RawClient(listening).unary(methods.put, message({ 1: successionKey('/registry'), 2: value }))
    return listening
  }
  const [empty, other, broken, successor] = await Promise.all([
    serve(undefined),
    serve(succeed(undefined, { former: [0x999n], keys })),
    serve('{"former":["123"]}'),
    serve(succeed(undefined, { former: [0x1n, own], keys })),
  ])
  const gone = 'http://127.0.0.1:1'
  const given = { clusterId: own, prefix: '/registry', tls: {}, signal: new AbortController().signal }
  const former = [gone, empty, other, broken]
  expect(await findSuccessor({ ...given, endpoints: [...former, successor] })).toEqual({
    endpoint: successor,
    keys,
    isContested: false,
  })
  expect(await findSuccessor({ ...given, endpoints: former })).toBeUndefined()
  expect(await findSuccessor({ ...given, endpoints: [] })).toBeUndefined()
  expect(await findSuccessor({ ...given, endpoints: [successor], prefix: '/other' })).toBeUndefined()
})

test('where a majority of the former members serves, the successor is contested', async () => {
  const [former, successor] = await Promise.all(
    [1, 2].map(async () => (await runDatastore({ path: join(temporaryDirectory(), 'state.db') })).listening),
  )
  const signal = new AbortController().signal
  using member = new Member({ address: former! })
  const { clusterId = 0n } = await member.read('/', { isLocal: false, signal })
  const value = succeed(undefined, { former: [clusterId], keys })
  await new RawClient(successor!).unary(methods.put, message({ 1: successionKey('/registry'), 2: value }))
  const given = { clusterId, prefix: '/registry', tls: {}, signal }
  expect(await findSuccessor({ ...given, endpoints: [former!, successor!] })).toEqual({
    endpoint: successor,
    keys,
    isContested: true,
  })
  expect(await findSuccessor({ ...given, endpoints: [successor!] })).toMatchObject({ isContested: false })
})

test('keys are the same where all of them are', async () => {
  const [first, second] = [dataDirectory(), dataDirectory()]
  writeKeys(first, 'one')
  writeKeys(second, 'one')
  expect(await keysDigest(first.pkiDir)).toBe(await keysDigest(second.pkiDir))
  writeKeys(second, 'two')
  expect(await keysDigest(first.pkiDir)).not.toBe(await keysDigest(second.pkiDir))
})
