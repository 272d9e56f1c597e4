import { existsSync } from 'node:fs'
import { basename } from 'node:path'
import { AppError, describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Config } from '../config/config.ts'
import { nodeId } from '../config/facts.ts'
import type { Paths } from '../config/paths.ts'
import { adminAccess, writeAdminKubeconfig, writeKubeconfigs } from '../pki/kubeconfig.ts'
import { prepareEtcdPki } from '../pki/etcd.ts'
import { pkiFiles, preparePki } from '../pki/pki.ts'
import type { Renewals } from '../pki/renewals.ts'
import { mergeIntoKubeconfig } from '../pki/user-kubeconfig.ts'
import type { Addresses } from '../components/component.ts'
import { apiserverUrl } from '../components/probe.ts'
import type { Board } from './condition.ts'
import { requireNoneLate, tellRenewals } from './renewals.ts'

export interface CredentialOptions {
  readonly config: Config
  readonly addresses: () => Addresses
  readonly paths: Paths
  readonly log: Logger
}

const nothingDone: Renewals = { renewed: [], putOff: [], warnings: [] }

/**
 * Brings certificates and kubeconfigs in order. The components read what is renewed by themselves. Rejects in such a way
 * that `isPutOff` is true of the error when all is there that is needed now, and only what was due is not renewed.
 */
export async function prepareCredentials({
  config,
  addresses,
  paths,
  log,
}: CredentialOptions): Promise<void> {
  const { nodeIp } = addresses()
  // Written when the API server was there for the first time.
  const isNew = !existsSync(paths.clusterFacts)
  const pki = await preparePki({ ...{ ...config, ...addresses(), dir: paths.pkiDir }, isNew })
  const ofEtcd = config.clusterInit ? await prepareEtcdPki({ dir: paths.pkiDir, isNew, nodeIp }) : nothingDone
  const [renewed, warnings, late] = [
    [...pki.renewed, ...ofEtcd.renewed],
    [...pki.warnings, ...ofEtcd.warnings],
    [...pki.putOff, ...ofEtcd.putOff],
  ]
  const server = apiserverUrl(config)
  await writeKubeconfigs({ pki, dir: paths.kubeconfigDir, server })
  tellRenewals({ renewed, warnings }, log)
  await writeAdminKubeconfig(paths.adminKubeconfig, pki, server).catch((cause: unknown) =>
    late.push({ name: basename(paths.adminKubeconfig), reason: 'it changed', cause }),
  )
  requireNoneLate(late)
}

const kubeconfigPart = 'kubeconfig'

/**
 * Puts the admin's access into the kubeconfig that the user has named. Trouble with that is told and shown, and ends
 * nothing else; false: it is to be tried again.
 */
export async function writeUserKubeconfig({
  config,
  paths,
  log,
  board,
}: Omit<CredentialOptions, 'addresses'> & { board: Board }): Promise<boolean> {
  const { writeKubeconfig: path, dataDir } = config
  if (path === undefined) return true
  try {
    const access = await adminAccess(pkiFiles(paths.pkiDir), apiserverUrl(config))
    await mergeIntoKubeconfig({ path, access, dataDir, id: nodeId(paths) })
    board.forget(kubeconfigPart)
    return true
  } catch (error) {
    const remedy = error instanceof AppError ? error.remedy : undefined
    const reason = describeError(error)
    if (board.part(kubeconfigPart)?.message !== reason)
      log.error({ path, reason, remedy }, 'cannot write the kubeconfig; it stays as it is')
    board.report({ name: kubeconfigPart, state: 'degraded', message: reason })
    return false
  }
}
