import { connect } from 'node:net'
import { type AnyConfig, hasNode } from '../../config/config.ts'
import { paths } from '../../config/paths.ts'
import { detectHost } from '../facts/host.ts'
import { HostFiles } from '../facts/host-files.ts'
import { readHeldAddress, readLastAddress, readLastOtherAddress } from '../facts/node-record.ts'
import { type Network, readNetwork } from '../facts/node-address.ts'
import { datastoreRequirements } from './datastore-requirements.ts'
import type { Examination } from './examination.ts'
import { kernelRequirements } from './kernel-requirements.ts'
import { mountRequirements } from './mount-requirements.ts'
import { networkRequirements } from './network-requirements.ts'
import { systemRequirements } from './system-requirements.ts'
import type { Requirement } from './requirement.ts'

export type { Requirement } from './requirement.ts'

/**
 * Whether this machine can be what its role asks for: each requirement with its state and the remedy. Looks
 * only: nothing is changed, loaded or started.
 */
export async function preflight(
  config: AnyConfig,
  { root = '/', now = new Date(), network }: { root?: string; now?: Date; network?: Network } = {},
): Promise<Requirement[]> {
  const files = new HostFiles(root)
  const { controlSocket, nodeRecord, heldAddress } = paths(config)
  if (!hasNode(config)) {
    return datastoreRequirements({ config, root, files, isRunning: await isRunning(controlSocket), now })
  }
  const last = readLastAddress(files.path(nodeRecord))
  const otherLast = readLastOtherAddress(files.path(nodeRecord))
  const held = readHeldAddress(files.path(heldAddress))
  const examination: Examination = {
    config,
    host: detectHost({ root }),
    files,
    network: network ?? (await readNetwork(files, { ...config, last, otherLast, held })),
    isRunning: await isRunning(controlSocket),
    isRoot: process.getuid?.() === 0,
    umask: process.umask(),
    now,
  }
  return [
    ...systemRequirements(examination),
    ...mountRequirements(examination),
    ...kernelRequirements(examination),
    ...networkRequirements(examination),
    ...(await runtimeRequirements(examination)),
  ]
}

/** Of a runtime that others run. */
async function runtimeRequirements({ config, host, files }: Examination): Promise<Requirement[]> {
  if (config.role !== 'kubelet' || config.containerRuntime !== 'docker') return []
  const { dockerRequirements } = await import('./docker-requirements.ts')
  const { dockerEndpoint: dockerSocket, kubeletRootDir } = config
  return dockerRequirements({ dockerSocket, kubeletRootDir, mounts: host.mounts, files })
}

/** The daemon of this data directory answers, so what it uses is not in its own way. */
async function isRunning(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}
