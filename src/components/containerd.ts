import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { privateDirectoryMode, writeRendered } from '../base/files.ts'
import type { Paths } from '../config/paths.ts'
import { cniConfigName, renderCniConfig } from '../node/render/cni-config.ts'
import { renderContainerdConfig } from '../node/render/containerd-config.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { hostPath } from '../node/facts/host-path.ts'
import { podMtu, uplinkMtu } from '../node/render/overlay.ts'
import { applySysctls, networkSysctls } from '../node/render/sysctls.ts'
import { runCommand } from '../supervisor/spawn.ts'
import type { MachineContext } from './component.ts'
import { probeGrpcSocket } from './probe.ts'
import type { ProcessRecipe } from './process-component.ts'

/** Where distributions and DaemonSets put CNI plugins that the payload lacks. */
const hostCniBinDir = '/opt/cni/bin'
const modprobeTimeoutMs = 10_000
const proxyVariables = ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY']

/** containerd, with the network of pods: it calls the CNI plugins, and theirs is what it reads. */
export function containerd(context: MachineContext): ProcessRecipe {
  const { config, paths, environment } = context
  return {
    name: 'containerd',
    needs: [],
    provides: ['cri'],
    policy: 'degraded',
    // Of its plugins alone it says a hundred things at info.
    args: () => [`--config=${configFile(paths)}`, `--log-level=${config.v < 2 ? 'warn' : 'info'}`],
    // Pulling images is the one thing that a proxy of the machine's environment is for.
    env: proxyEnvironment(environment),
    logFormat: 'logfmt',
    readyTimeoutMs: 60_000,
    stopTimeoutMs: 10_000,
    prepare: () => prepare(context),
    probe: (signal) => probeGrpcSocket({ path: paths.containerdSocket, signal }),
  }
}

function configFile({ etcDir }: Paths): string {
  return join(etcDir, 'containerd.toml')
}

async function prepare(context: MachineContext): Promise<void> {
  const { config, paths, payload, host, choices, podCidr } = context
  const ownCniConfDir = join(paths.etcDir, 'cni')
  const cniConfDir = config.cniConfDir ?? ownCniConfDir
  const dropInDir = join(paths.etcDir, 'containerd.d')
  if (host.kernel.feature('bridgeNetfilter') !== 'present') await loadModules()
  applySysctls(networkSysctls(config.clusterCidr))
  await Promise.all(
    [ownCniConfDir, dropInDir].map((dir) => mkdir(dir, { recursive: true, mode: privateDirectoryMode })),
  )
  // containerd would make it for root alone.
  await mkdir(cniConfDir, { recursive: true })
  const containerdConfig = renderContainerdConfig({
    root: paths.containerdRoot,
    state: paths.containerdState,
    socket: paths.containerdSocket,
    dropInDir,
    snapshotter: config.snapshotter,
    pauseImage: payload.version.images.pause,
    shim: payload.bin('containerd-shim-runc-v2'),
    runc: payload.bin('runc'),
    cniBinDirs: [payload.cniBinDir, hostCniBinDir],
    cniConfDir,
    cgroupDriver: choices.cgroupDriver,
    canLowerOomScore: host.capabilities.sysResource,
  })
  await writeRendered(configFile(paths), containerdConfig)
  if (podCidr === undefined || config.cniConfDir !== undefined)
    await rm(cniConfigFile(paths), { force: true })
  else await writeCniConfig(context, podCidr)
}

function cniConfigFile({ etcDir }: Paths): string {
  return join(etcDir, 'cni', cniConfigName)
}

/** containerd watches the directory: what is started from then on has an address of this range. */
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

/** No one asks the kernel for br_netfilter by itself. Where it cannot be loaded, `k8s check` says what that means. */
async function loadModules(): Promise<void> {
  const modprobe = {
    command: 'modprobe',
    args: ['--all', 'br_netfilter', 'overlay'],
    env: { PATH: hostPath },
  }
  await runCommand({ ...modprobe, timeoutMs: modprobeTimeoutMs }).catch(() => {})
}

function proxyEnvironment(environment: MachineContext['environment']): Record<string, string> {
  const names = proxyVariables.flatMap((name) => [name, name.toLowerCase()])
  return Object.fromEntries(names.flatMap((name) => (environment[name] ? [[name, environment[name]]] : [])))
}
