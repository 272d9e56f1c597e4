import { X509Certificate } from 'node:crypto'
import { mkdtempDisposableSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { kubeletClientIdentity, kubeletPkiFiles, prepareKubeletPki } from '../../../src/pki/kubelet.ts'

const now = new Date('2026-11-26T12:00:00Z')
const given = { nodeName: 'one', addresses: ['192.0.2.7'], now }

test('a kubelet alone has an authority for who serves and one for who asks, and keeps both', async () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-pki-'))
  const dir = join(directory.path, 'pki')
  const { renewed } = await prepareKubeletPki({ dir, ...given })
  expect(renewed.map(({ name }) => name)).toEqual(['kubelet', 'pod-client'])
  const files = kubeletPkiFiles(dir)
  const read = (path: string) => new X509Certificate(readFileSync(path))
  const serving = read(files.serving.certFile)
  expect(serving.subjectAltName).toContain('IP Address:192.0.2.7')
  expect(serving.verify(read(files.serverCaFile).publicKey)).toBe(true)
  expect(read(files.client.certFile).verify(read(files.clientCaFile).publicKey)).toBe(true)
  expect(read(files.client.certFile).verify(read(files.serverCaFile).publicKey)).toBe(false)
  for (const { keyFile } of [files.serving, files.client]) expect(statSync(keyFile).mode & 0o777).toBe(0o600)
  expect(kubeletClientIdentity(files)).toMatchObject({ ca: readFileSync(files.serverCaFile, 'utf8') })
  expect((await prepareKubeletPki({ dir, ...given })).renewed).toEqual([])
  const moved = await prepareKubeletPki({ dir, ...given, addresses: ['192.0.2.8'] })
  expect(moved.renewed).toEqual([{ name: 'kubelet', reason: 'its names changed' }])
})

test('an authority that is lost is told, and no other one takes its place', async () => {
  using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-pki-'))
  const dir = join(directory.path, 'pki')
  await prepareKubeletPki({ dir, ...given })
  for (const end of ['crt', 'key']) rmSync(join(dir, `client-ca.${end}`))
  await expect(prepareKubeletPki({ dir, ...given })).rejects.toThrow('client-ca.crt: it is missing')
})
