import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { privateDirectoryMode, writeRendered } from '../base/files.ts'
import type { Paths } from '../config/paths.ts'
import { renderContainerdConfig } from '../node/render/containerd-config.ts'
import { hostPath } from '../node/facts/host-path.ts'
import { applySysctls, networkSysctls } from '../node/render/sysctls.ts'
import { runCommand } from '../supervisor/spawn.ts'
import type { MachineContext } from './component.ts'
import { cniDirectories, prepareCni } from './pod-network.ts'
import { probeGrpcSocket } from './probe.ts'
import type { ProcessRecipe } from './process-component.ts'

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
  const { config, paths, payload, host, choices } = context
  const { confDir: cniConfDir, binDirs: cniBinDirs } = cniDirectories(context)
  const dropInDir = join(paths.etcDir, 'containerd.d')
  if (host.kernel.feature('bridgeNetfilter') !== 'present') await loadModules()
  applySysctls(networkSysctls(config.clusterCidr))
  await mkdir(dropInDir, { recursive: true, mode: privateDirectoryMode })
  const containerdConfig = renderContainerdConfig({
    root: paths.containerdRoot,
    state: paths.containerdState,
    socket: paths.containerdSocket,
    dropInDir,
    snapshotter: config.snapshotter,
    pauseImage: payload.version.images.pause,
    shim: payload.bin('containerd-shim-runc-v2'),
    runc: payload.bin('runc'),
    cniBinDirs,
    cniConfDir,
    cgroupDriver: choices.cgroupDriver,
    canLowerOomScore: host.capabilities.sysResource,
  })
  await writeRendered(configFile(paths), containerdConfig)
  await prepareCni(context)
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
