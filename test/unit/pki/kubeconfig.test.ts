import { readFileSync, statSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { parse } from 'yaml'
import { kubeconfigPath, writeAdminKubeconfig, writeKubeconfigs } from '../../../src/pki/kubeconfig.ts'
import { type Pki, preparePki } from '../../../src/pki/pki.ts'

let root: string
let pki: Pki

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'k8s kubeconfig-'))
  pki = await preparePki({
    dir: join(root, 'pki'),
    nodeName: 'node-a',
    nodeIp: '192.0.2.10',
    advertiseAddress: '192.0.2.10',
    bindAddress: '0.0.0.0',
    serviceCidr: 'fd00:96::/112',
    clusterDomain: 'cluster.local',
    tlsSan: [],
  })
})

afterEach(() => rm(root, { recursive: true }))

const write = async () => {
  const server = 'https://127.0.0.1:6443'
  await writeKubeconfigs({ pki, dir: join(root, 'kubeconfig'), server })
  await writeAdminKubeconfig(join(root, 'admin.kubeconfig'), pki, server)
}

test("the admin's stands alone", async () => {
  await write()
  const path = join(root, 'admin.kubeconfig')
  expect(statSync(path).mode & 0o777).toBe(0o600)
  const base64 = (file: string) => readFileSync(file).toString('base64')
  expect(parse(readFileSync(path, 'utf8'))).toEqual({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: 'k8s',
        cluster: {
          server: 'https://127.0.0.1:6443',
          'certificate-authority-data': base64(pki.authorities.server.certFile),
        },
      },
    ],
    users: [
      {
        name: 'admin',
        user: {
          'client-certificate-data': base64(pki.leaves['admin-client'].certFile),
          'client-key-data': base64(pki.leaves['admin-client'].keyFile),
        },
      },
    ],
    contexts: [{ name: 'k8s', context: { cluster: 'k8s', user: 'admin' } }],
    'current-context': 'k8s',
  })
})

test("a component's names the files that are renewed", async () => {
  await write()
  const path = kubeconfigPath(join(root, 'kubeconfig'), 'kubelet')
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(parse(readFileSync(path, 'utf8'))).toMatchObject({
    clusters: [{ cluster: { 'certificate-authority': pki.authorities.server.certFile } }],
    users: [
      {
        name: 'kubelet',
        user: {
          'client-certificate': pki.leaves['kubelet-client'].certFile,
          'client-key': pki.leaves['kubelet-client'].keyFile,
        },
      },
    ],
  })
})

test('what did not change is not written again', async () => {
  await write()
  const path = join(root, 'admin.kubeconfig')
  const { ino } = statSync(path)
  await write()
  expect(statSync(path).ino).toBe(ino)
})
