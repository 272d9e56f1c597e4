import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { parse } from 'yaml'
import type { Logger } from '../../../src/base/logger.ts'
import { Board } from '../../../src/cluster/condition.ts'
import { prepareCredentials, writeUserKubeconfig } from '../../../src/cluster/credentials.ts'
import type { Config } from '../../../src/config/config.ts'
import { type Paths, paths as pathsOf } from '../../../src/config/paths.ts'
import { temporaryDirectory } from '../datastore/support.ts'

let paths: Paths
let config: Config
let board: Board
let told: { fields: Record<string, unknown>; message: string }[]

beforeEach(() => {
  const dataDir = join(temporaryDirectory(), 'data')
  paths = pathsOf({ dataDir })
  mkdirSync(dataDir)
  config = {
    ...{ dataDir, nodeName: 'one', bindAddress: '0.0.0.0', httpsListenPort: 6443 },
    ...{ serviceCidr: '10.96.0.0/12', clusterDomain: 'cluster.local', tlsSan: [] },
    writeKubeconfig: join(dataDir, '..', 'config'),
  } as unknown as Config
  told = []
  board = new Board()
})

const tell = (fields: Record<string, unknown>, message: string) => void told.push({ fields, message })
const log = { info: tell, warn: tell, error: tell } as unknown as Logger
const prepare = () =>
  prepareCredentials({
    ...{ config, paths, log },
    addresses: () => ({ nodeIp: '192.0.2.1', advertiseAddress: '192.0.2.1' }),
  })

test('a new cluster gets keys; one that has been there never gets others', async () => {
  await prepare()
  const key = join(paths.pkiDir, 'encryption-config.yaml')
  const first = readFileSync(key, 'utf8')
  await prepare()
  expect(readFileSync(key, 'utf8')).toBe(first)
  // As the API server has been ready, and then somebody has lost all of it.
  writeFileSync(paths.clusterFacts, '{}')
  rmSync(paths.pkiDir, { recursive: true })
  await expect(prepare()).rejects.toThrow(/is missing|cannot find/)
  expect(readdirSync(paths.pkiDir)).toEqual([])
})

test("the user's kubeconfig gets the admin's access", async () => {
  await prepare()
  await writeUserKubeconfig({ config, paths, log, board })
  const { users } = parse(readFileSync(config.writeKubeconfig as string, 'utf8')) as {
    users: [{ user: { 'client-certificate-data': string } }]
  }
  const certificate = readFileSync(join(paths.pkiDir, 'admin-client.crt')).toString('base64')
  expect(users[0].user['client-certificate-data']).toBe(certificate)
})

test('trouble with it is told once, with what to do, and shown until it is over', async () => {
  await prepare()
  const path = config.writeKubeconfig as string
  writeFileSync(path, 'my diary\n')
  await writeUserKubeconfig({ config, paths, log, board })
  expect(told.at(-1)).toEqual({
    fields: {
      path,
      reason: `cannot change the kubeconfig ${path}: it is no map`,
      remedy: 'mend it, or name another file with --write-kubeconfig',
    },
    message: 'cannot write the kubeconfig; it stays as it is',
  })
  expect(readFileSync(path, 'utf8')).toBe('my diary\n')
  expect(await writeUserKubeconfig({ config, paths, log, board })).toBe(false)
  expect(told.filter(({ message }) => message.includes('kubeconfig'))).toHaveLength(1)
  expect(board.condition([]).problems).toEqual([
    `kubeconfig: cannot change the kubeconfig ${path}: it is no map`,
  ])
  rmSync(path)
  expect(await writeUserKubeconfig({ config, paths, log, board })).toBe(true)
  expect(board.condition([]).problems).toEqual([])
})

test('nothing is written where none is named', async () => {
  await prepare()
  const { writeKubeconfig: path, ...rest } = config
  await writeUserKubeconfig({ config: rest as Config, paths, log, board })
  expect(existsSync(path as string)).toBe(false)
})
