import { existsSync } from 'node:fs'
import type { Logger } from '../base/logger.ts'
import type { Config } from '../config/config.ts'
import type { Paths } from '../config/paths.ts'
import { writeKubeconfigs } from '../pki/kubeconfig.ts'
import { preparePki } from '../pki/pki.ts'
import type { Addresses } from '../components/component.ts'
import { apiserverUrl } from '../components/probe.ts'

interface CredentialOptions {
  readonly config: Config
  readonly addresses: () => Addresses
  readonly paths: Paths
  readonly log: Logger
}

/** Brings certificates and kubeconfigs in order. The components read what is renewed by themselves. */
export async function prepareCredentials({
  config,
  addresses,
  paths,
  log,
}: CredentialOptions): Promise<void> {
  const pki = await preparePki({
    ...{ ...config, ...addresses(), dir: paths.pkiDir },
    // Written when the API server was there for the first time.
    isNew: !existsSync(paths.clusterFacts),
  })
  await writeKubeconfigs({
    pki,
    dir: paths.kubeconfigDir,
    adminPath: paths.adminKubeconfig,
    copyPath: config.writeKubeconfig,
    server: apiserverUrl(config),
  })
  for (const { name, reason } of pki.renewed)
    log.info({ certificate: name }, `certificate renewed because ${reason}`)
  for (const warning of pki.warnings) log.warn(warning)
}
