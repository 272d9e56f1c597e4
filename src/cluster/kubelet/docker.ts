import type { Logger } from '../../base/logger.ts'
import type { KubeletConfig } from '../../config/config.ts'
import type { HostFacts } from '../../node/facts/host.ts'
import { HostFiles } from '../../node/facts/host-files.ts'
import { dockerRequirements, isOfContainer } from '../../node/preflight/docker-requirements.ts'

/**
 * Tells what pods on Docker lack here, a line each with what mends it, and leaves away what could not work: Docker would
 * mount a directory of the host's over /etc/hosts. A Docker that is away now may come.
 */
export async function settleDocker(
  config: KubeletConfig,
  { host, log }: { host: HostFacts; log: Logger },
): Promise<KubeletConfig> {
  const surroundings = {
    dockerSocket: config.dockerEndpoint,
    kubeletRootDir: config.kubeletRootDir,
    mounts: host.mounts,
    files: new HostFiles(),
  }
  for (const { name, state, detail, remedy } of await dockerRequirements(surroundings)) {
    if (state === 'ok') log.info({ [name]: detail }, 'pods run on Docker')
    else log.warn({ requirement: name, reason: detail, remedy }, 'not all of it can work')
  }
  const mountsHostsFile = config.kubeletMountHostsFile && !isOfContainer(surroundings, config.kubeletRootDir)
  return { ...config, kubeletMountHostsFile: mountsHostsFile }
}
