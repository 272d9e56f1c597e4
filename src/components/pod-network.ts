import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { privateDirectoryMode, writeRendered } from '../base/files.ts'
import type { Paths } from '../config/paths.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { cniConfigName, renderCniConfig } from '../node/render/cni-config.ts'
import { podMtu, uplinkMtu } from '../node/render/overlay.ts'
import type { MachineContext } from './component.ts'

/** Where distributions and DaemonSets put CNI plugins that the payload lacks. */
const hostCniBinDir = '/opt/cni/bin'

/** Where the plugins of CNI are looked for, and the network that they make. */
export function cniDirectories({
  config,
  paths,
  payload,
}: Pick<MachineContext, 'config' | 'paths' | 'payload'>): { confDir: string; binDirs: readonly string[] } {
  return {
    confDir: config.cniConfDir ?? ownConfDir(paths),
    binDirs: [payload.cniBinDir, hostCniBinDir],
  }
}

/** Makes the directory, as a runtime would for root alone, and writes the own network, where it is known and asked for. */
export async function prepareCni(context: MachineContext): Promise<void> {
  const { config, paths, podCidr } = context
  await mkdir(ownConfDir(paths), { recursive: true, mode: privateDirectoryMode })
  await mkdir(cniDirectories(context).confDir, { recursive: true })
  if (podCidr === undefined || config.cniConfDir !== undefined)
    await rm(cniConfigFile(paths), { force: true })
  else await writeCniConfig(context, podCidr)
}

/** The runtime watches the directory: what is started from then on has an address of this range. */
export async function writeCniConfig(
  {
    addresses,
    config,
    paths,
    host,
    choices,
  }: Pick<MachineContext, 'addresses' | 'config' | 'paths' | 'host' | 'choices'>,
  podCidr: string,
): Promise<void> {
  const { nodeIp } = addresses()
  const mtu = uplinkMtu(new HostFiles(), nodeIp) ?? host.defaultRoute?.mtu
  const text = renderCniConfig({
    podCidr,
    backend: choices.proxyMode,
    ipamDir: join(paths.runDir, 'cni'),
    mtu: podMtu(mtu, { backend: config.networkBackend, nodeIp }),
  })
  await writeRendered(cniConfigFile(paths), text)
}

function ownConfDir({ etcDir }: Paths): string {
  return join(etcDir, 'cni')
}

function cniConfigFile(paths: Paths): string {
  return join(ownConfDir(paths), cniConfigName)
}
