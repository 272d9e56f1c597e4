import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Cluster, defaultDataDir, startCluster } from './harness/cluster.ts'
import { reportFailures } from './harness/report.ts'

// The keys of Secrets, rotated while the cluster runs.

let cluster: Cluster

beforeAll(async () => {
  cluster = await startCluster({ name: 'encryption' })
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

interface State {
  readonly keys: readonly { name: string; secrets: number }[]
  readonly others: readonly { name: string; secrets: number }[]
  readonly isLoaded: boolean
}

async function state(): Promise<State> {
  return JSON.parse((await cluster.k8s(['secrets-encryption', 'status', '-o', 'json'])).stdout) as State
}

const secret = (name: string) =>
  cluster.kubectl(['get', 'secret', name, '-o', 'jsonpath={.data.word}']).then(({ stdout }) => stdout)

test('all Secrets get a new key, and the old one stays to read with', async () => {
  const names = Array.from({ length: 120 }, (_, index) => `secret-${index}`)
  const list = names.map((name) => ({
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name }, immutable: name.endsWith('7') },
    data: { word: Buffer.from(name).toString('base64') },
  }))
  await cluster.kubectl(['create', '-f', '-'], {
    stdin: JSON.stringify({ apiVersion: 'v1', kind: 'List', items: list }),
  })
  expect((await cluster.k8s(['secrets-encryption', 'status'])).stdout).toMatch(
    /^KEY +USE +SECRETS\nkey-1 +written and read with +\d+\n$/,
  )
  const before = await state()
  expect(before).toMatchObject({ keys: [{ name: 'key-1' }], others: [], isLoaded: true })
  expect(before.keys[0]?.secrets).toBeGreaterThanOrEqual(names.length)

  const rotated = await cluster.k8s(['secrets-encryption', 'rotate'], { timeoutMs: 240_000 })
  expect(rotated.stdout).toMatch(/^All \d+ Secrets are encrypted with key-2\.\n$/m)
  const { keys, others, isLoaded } = await state()
  expect({ names: keys.map(({ name }) => name), old: keys[1]?.secrets, others, isLoaded }).toEqual({
    ...{ names: ['key-2', 'key-1'], old: 0, others: [], isLoaded: true },
  })
  expect(keys[0]?.secrets).toBeGreaterThanOrEqual(names.length)
  expect(await secret('secret-7')).toBe(Buffer.from('secret-7').toString('base64'))
  expect(cluster.daemon.log()).not.toContain('key-2:')
})

test('what is left of a rotation that was interrupted is finished, also after a restart', async () => {
  const path = cluster.machine.path(`${defaultDataDir}/pki/encryption-config.yaml`)
  const key = (name: string) => new RegExp(`- name: ${name}\\n.*\\n`).exec(readFileSync(path, 'utf8'))![0]
  // As it is between the second and the third step: nothing is written with the first key yet.
  const exchanged = readFileSync(path, 'utf8')
    .replace(key('key-2'), 'FIRST')
    .replace(key('key-1'), key('key-2'))
    .replace('FIRST', key('key-1'))
  await cluster.daemon.stop()
  await cluster.exec(['bash', '-c', `cat >${defaultDataDir}/pki/encryption-config.yaml`], {
    stdin: exchanged,
  })
  cluster.startDaemon()
  await cluster.ready()
  expect((await state()).keys.map(({ name }) => name)).toEqual(['key-1', 'key-2'])
  const { stdout } = await cluster.k8s(['secrets-encryption', 'rotate'], { timeoutMs: 240_000 })
  expect(stdout).toContain('The API server writes with key-2.')
  expect((await state()).keys).toMatchObject([{ name: 'key-2' }, { name: 'key-1', secrets: 0 }])
  expect(await secret('secret-8')).toBe(Buffer.from('secret-8').toString('base64'))
})

test('a configuration that was changed by hand is left alone', async () => {
  await cluster.exec(['sed', '-i', '1i # ours', `${defaultDataDir}/pki/encryption-config.yaml`])
  const { exitCode, stderr } = await cluster.k8s(['secrets-encryption', 'rotate'], { check: false })
  expect(exitCode).toBe(1)
  expect(stderr).toMatch(
    /^k8s: cannot use the keys in .*: the file was changed by hand\. Rotate them by hand/,
  )
})
