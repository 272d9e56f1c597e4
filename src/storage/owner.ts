import { readFile } from 'node:fs/promises'
import { authorityHash } from '../pki/authority-hash.ts'
import type { PkiFiles } from '../pki/pki.ts'

/** Beside the objects of a cluster, an etcd has whose they are: this key, with the digest of the cluster's authority. */
export function ownerKey(prefix: string): string {
  return `/k8s.local/cluster${prefix}`
}

export async function ownerValue({ authorities }: Pick<PkiFiles, 'authorities'>): Promise<string> {
  return authorityHash(await readFile(authorities.server.certFile, 'utf8'))
}
