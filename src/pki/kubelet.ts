/*
 * What a kubelet trusts and shows that has no cluster:
 *
 *    server-ca ---> kubelet (who serves)
 *    client-ca ---> pod-client (who may ask it, and so is root on the machine)
 */
import { existsSync } from 'node:fs'
import { allDone } from '../base/all-done.ts'
import { preparePrivateDirectory, syncDirectory } from '../base/files.ts'
import type { TlsIdentity } from '../base/http.ts'
import { readTlsIdentity } from '../base/tls-files.ts'
import { authorityFiles, type KeyPairFiles, openAuthority } from './authority.ts'
import { type Leaf, leafFiles, serving } from './leaves.ts'
import { type Renewals, renewLeaves } from './renewals.ts'

export interface KubeletPkiFiles {
  readonly serverCaFile: string
  readonly clientCaFile: string
  readonly serving: KeyPairFiles
  readonly client: KeyPairFiles
}

/** Pure: no file is looked at. */
export function kubeletPkiFiles(dir: string): KubeletPkiFiles {
  return {
    serverCaFile: authorityFiles(dir, 'server').certFile,
    clientCaFile: authorityFiles(dir, 'client').certFile,
    serving: leafFiles(dir, 'kubelet'),
    client: leafFiles(dir, 'pod-client'),
  }
}

/** What shows the kubelet that it may ask, read anew at each call. */
export function kubeletClientIdentity({ serverCaFile, client }: KubeletPkiFiles): TlsIdentity {
  return readTlsIdentity({ caFile: serverCaFile, ...client })
}

/** As `preparePki`, for a kubelet alone: repeatable, at every start and while it runs. */
export async function prepareKubeletPki(given: {
  readonly dir: string
  readonly nodeName: string
  /** At which it is asked, beside loopback. */
  readonly addresses: readonly string[]
  readonly now?: Date
}): Promise<Renewals> {
  const { dir, nodeName, addresses, now = new Date() } = given
  await preparePrivateDirectory(dir)
  const files = kubeletPkiFiles(dir)
  const mayCreate = ![files.serving, files.client].some(({ certFile }) => existsSync(certFile))
  const authorities = await allDone(
    (['server', 'client'] as const).map((name) => openAuthority({ name, dir, now, mayCreate })),
  )
  if (mayCreate) await syncDirectory(dir)
  const client: Leaf = {
    authority: 'client',
    profile: { subject: { commonName: 'k8s-pod-client' }, usage: 'client' },
  }
  const kubelet = serving(`system:node:${nodeName}`, [
    nodeName,
    'localhost',
    '127.0.0.1',
    '::1',
    ...addresses,
  ])
  const wanted = [
    { name: 'kubelet', leaf: kubelet, files: files.serving },
    { name: 'pod-client', leaf: client, files: files.client },
  ]
  return renewLeaves({ wanted, authorities, now })
}
