import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Config } from '../config/config.ts'
import type { Paths } from '../config/paths.ts'
import { writeKubeconfigs } from '../pki/kubeconfig.ts'
import { preparePki } from '../pki/pki.ts'
import { serverUrl } from './plan.ts'

/** Certificates are renewed months before their end: a day more or less is nothing. */
const renewalIntervalMs = 24 * 3_600_000

interface CredentialOptions {
  readonly config: Config
  readonly paths: Paths
  readonly log: Logger
}

/** Brings certificates and kubeconfigs in order. The components read what is renewed by themselves. */
export async function prepareCredentials({ config, paths, log }: CredentialOptions): Promise<void> {
  const pki = await preparePki({ ...config, dir: paths.pkiDir })
  await writeKubeconfigs({
    pki,
    dir: paths.kubeconfigDir,
    adminPath: paths.adminKubeconfig,
    copyPath: config.writeKubeconfig,
    server: serverUrl(config),
  })
  for (const { name, reason } of pki.renewed)
    log.info({ certificate: name }, `certificate renewed because ${reason}`)
  for (const warning of pki.warnings) log.warn(warning)
}

/** Does so again once a day, until the signal fires. */
export async function renewDaily({
  signal,
  ...options
}: CredentialOptions & { signal: AbortSignal }): Promise<void> {
  for (;;) {
    await sleep(renewalIntervalMs, undefined, { signal, ref: false })
    await prepareCredentials(options).catch((error: unknown) =>
      options.log.error(
        { reason: describeError(error) },
        'cannot renew certificates; the next try is in a day',
      ),
    )
  }
}
