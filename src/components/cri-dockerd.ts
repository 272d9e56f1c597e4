import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '../base/errors.ts'
import { privateDirectoryMode } from '../base/files.ts'
import { criDockerdSocket } from '../config/paths.ts'
import { pingDocker } from '../node/facts/docker.ts'
import { flags } from './arguments.ts'
import type { KubeletContext } from './component.ts'
import { cniDirectories, prepareCni } from './pod-network.ts'
import { probeGrpcSocket } from './probe.ts'
import type { ProcessRecipe } from './process-component.ts'

/** As processes have it that nobody has said anything of: a Docker that may give no lower one gives this. */
const usualOomScore = 0

/** The CRI on a Docker Engine, which others run: pods are its containers, and stay there when this one ends. */
export function criDockerd(context: KubeletContext): ProcessRecipe {
  const { config } = context
  return {
    name: 'cri-dockerd',
    needs: [],
    provides: ['cri'],
    policy: 'degraded',
    args: () => criDockerdArguments(context),
    logFormat: 'logfmt',
    readyTimeoutMs: 60_000,
    stopTimeoutMs: 10_000,
    prepare: () => prepare(context),
    // A Docker that is away comes back without its help.
    alive: probeSocket,
    probe: async (signal) => {
      await pingDocker(config.dockerEndpoint, signal)
      await probeSocket(signal)
    },
  }
}

function probeSocket(signal: AbortSignal): Promise<void> {
  return probeGrpcSocket({ path: criDockerdSocket, signal })
}

/** How long another one has to answer. */
const answerLimitMs = 2_000

/** What CNI needs is of use with network-plugin=cni. */
async function prepare(context: KubeletContext): Promise<void> {
  await refuseAnother(criDockerdSocket)
  await mkdir(context.paths.criDockerdRoot, { recursive: true, mode: privateDirectoryMode })
  await prepareCni(context)
}

/** It takes the socket away from one that serves it, whose pods are somebody else's. */
export async function refuseAnother(path: string): Promise<void> {
  const answers = await probeGrpcSocket({ path, signal: AbortSignal.timeout(answerLimitMs) }).then(
    () => true,
    () => false,
  )
  if (!answers) return
  throw new AppError(`cannot run cri-dockerd: another one serves ${path}`, {
    code: 'CRI_DOCKERD_THERE',
    remedy: `stop it (systemctl stop cri-docker), or use it: --container-runtime-endpoint=${path} in place of --container-runtime`,
  })
}

/** The flags of cri-dockerd (config/options.go); it reads no file. */
export function criDockerdArguments(
  context: Pick<KubeletContext, 'config' | 'paths' | 'payload' | 'host'>,
): string[] {
  const { config, paths, payload, host } = context
  const { confDir, binDirs } = cniDirectories(context)
  return flags(
    {
      'container-runtime-endpoint': `unix://${criDockerdSocket}`,
      'docker-endpoint': `unix://${config.dockerEndpoint}`,
      'cri-dockerd-root-directory': paths.criDockerdRoot,
      'pod-infra-container-image': payload.version.images.pause,
      // Docker's own network, as in `docker run`.
      'network-plugin': '',
      'cni-bin-dir': binDirs.join(','),
      'cni-conf-dir': confDir,
      'cni-cache-dir': join(paths.criDockerdRoot, 'cni'),
      // Whoever reaches it with the path of a stream has that stream: without this it listens on all addresses.
      'streaming-bind-addr': '127.0.0.1',
      'min-oom-score-adj': host.capabilities.sysResource ? undefined : usualOomScore,
      'log-level': config.v < 2 ? 'warn' : 'info',
    },
    config.criDockerdArg,
  )
}
