import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { AppError, errorCode } from '../base/errors.ts'
import { privateMode, publicMode } from '../base/files.ts'
import { authorityFiles, authorityNames } from './authority.ts'
import { secretFiles } from './secrets.ts'

/*
 * The bundle: the files below ${dataDir}/pki that belong to the cluster and not to one machine. They are made once, and
 * without any one of them what the cluster has stored or signed is lost: a snapshot has them all, a restore
 * brings them all, and a machine that joins is given them all. Certificates of components are issued anew.
 */

export interface BundleKind {
  /** Servers have members of an etcd, and its authority belongs to the cluster, too. */
  readonly hasMembers?: boolean
}

interface BundleFile {
  /** Below the directory. */
  readonly name: string
  readonly path: string
  readonly mode: number
}

/** Pure: no file is looked at. Keys come first. */
export function bundleFiles(dir: string, { hasMembers = false }: BundleKind = {}): readonly BundleFile[] {
  const names = [...authorityNames, ...(hasMembers ? (['etcd'] as const) : [])]
  const authorities = names.map((name) => authorityFiles(dir, name))
  const { serviceAccountKeyFile, serviceAccountPublicKeyFile, encryptionConfigFile } = secretFiles(dir)
  const secret = [...authorities.map(({ keyFile }) => keyFile), serviceAccountKeyFile, encryptionConfigFile]
  const open = [...authorities.map(({ certFile }) => certFile), serviceAccountPublicKeyFile]
  const file = (path: string, mode: number) => ({ name: path.slice(dir.length + 1), path, mode })
  return [...secret.map((path) => file(path, privateMode)), ...open.map((path) => file(path, publicMode))]
}

/** Whether any of it is there: then all of it has to be. */
export function hasBundle(dir: string): boolean {
  return bundleFiles(dir).some(({ path }) => existsSync(path))
}

/** Throws PKI_INCOMPLETE with the first file that is missing or empty. */
export async function requireWholeBundle(
  dir: string,
  action: string,
  kind: BundleKind = {},
): Promise<readonly BundleFile[]> {
  const files = bundleFiles(dir, kind)
  for (const { path } of files) {
    const reason = await readFile(path).then(
      (bytes) => (bytes.length === 0 ? 'is empty' : undefined),
      (error: unknown) => {
        if (errorCode(error) === 'ENOENT') return 'is missing'
        throw new AppError(`cannot ${action}`, { code: 'FILE_READ', path }, { cause: error })
      },
    )
    if (reason === undefined) continue
    throw new AppError(`cannot ${action}: the key file ${path} ${reason}`, {
      code: 'PKI_INCOMPLETE',
      path,
      remedy: 'put the file back, from a snapshot that has it (k8s snapshot ls), or from a backup',
    })
  }
  return files
}
