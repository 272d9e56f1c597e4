import { readFile } from 'node:fs/promises'
import { AppError } from '../base/errors.ts'
import { firstAnswer } from '../base/first-answer.ts'
import { readTlsIdentity } from '../base/tls-files.ts'
import type { Config } from '../config/config.ts'
import { Member } from '../datastore/member.ts'
import { authorityHash } from '../pki/authority-hash.ts'
import type { PkiFiles } from '../pki/pki.ts'

/** Beside the objects of a cluster, an etcd has whose they are: this key, with the digest of the cluster's authority. */
export function ownerKey(prefix: string): string {
  return `/k8s.local/cluster${prefix}`
}

export async function ownerValue({ authorities }: Pick<PkiFiles, 'authorities'>): Promise<string> {
  return authorityHash(await readFile(authorities.server.certFile, 'utf8'))
}

const answerLimitMs = 5_000

/** Whose cluster an etcd has that others run, by the first member that answers; undefined: nobody's. Rejects when none does. */
export async function ownerInEtcd(config: Config, signal: AbortSignal): Promise<string | undefined> {
  const { etcdEndpoints = [], etcdPrefix = '' } = config
  const { etcdCaFile: caFile, etcdCertFile: certFile, etcdKeyFile: keyFile } = config
  const ask = async (address: string) => {
    try {
      using member = new Member({ address, tls: readTlsIdentity({ caFile, certFile, keyFile }) })
      const limited = AbortSignal.any([signal, AbortSignal.timeout(answerLimitMs)])
      return await member.get(ownerKey(etcdPrefix), limited)
    } catch (cause) {
      throw new AppError(`cannot ask the etcd at ${address}`, { code: 'ETCD_ANSWER' }, { cause })
    }
  }
  return firstAnswer(etcdEndpoints, ask, 'no endpoint of etcd is known')
}
