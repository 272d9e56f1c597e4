import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from '../config/config.ts'
import type { Paths } from '../config/paths.ts'
import { chooseForNode, type NodeChoices } from '../node/facts/choices.ts'
import { detectHost, type HostFacts } from '../node/facts/host.ts'
import { cniConfigName, nodePodCidr, renderCniConfig } from '../node/render/cni-config.ts'
import { renderContainerdConfig } from '../node/render/containerd-config.ts'
import { renderKubeletConfig } from '../node/render/kubelet-config.ts'
import { applySysctls, networkSysctls } from '../node/render/sysctls.ts'
import type { Payload } from '../payload/payload.ts'
import type { PkiFiles } from '../pki/pki.ts'
import { runCommand } from '../supervisor/spawn.ts'
import { hostPath } from './host-path.ts'

/** Where distributions and DaemonSets put CNI plugins that the payload lacks. */
const hostCniBinDir = '/opt/cni/bin'
const modprobeTimeoutMs = 10_000

/** The files that containerd and the kubelet are started with, and what the machine lets kube-proxy do. */
export interface NodeFiles {
  readonly containerdConfig: string
  readonly kubeletConfig: string
  readonly proxyMode: NodeChoices['proxyMode']
  readonly canSetConntrack: boolean
  readonly canLowerOomScore: boolean
  /** The node has a name server to ask for names outside of the cluster. */
  readonly hasNameServer: boolean
  /** Writes them all, and sets what the network needs of the kernel. */
  write(): Promise<void>
}

export interface NodeFileOptions {
  readonly config: Config
  readonly paths: Paths
  readonly payload: Payload
  readonly pki: PkiFiles
}

/** Looks at the machine and decides what its node's files say; writes nothing yet. */
export function planNodeFiles(options: NodeFileOptions): NodeFiles {
  const { config, paths } = options
  const host = detectHost()
  const choices = chooseForNode(config, host)
  const file = (name: string) => join(paths.etcDir, name)
  const resolvConf = host.resolvConf.kind === 'host' ? host.resolvConf.path : file('resolv.conf')
  const cniConfDir = file('cni')
  const dropInDir = file('containerd.d')
  const staticPodDir = join(paths.dataDir, 'manifests')
  const texts: Readonly<Record<string, string>> = {
    [file('containerd.toml')]: containerd({ ...options, host, choices, cniConfDir, dropInDir }),
    [file('kubelet.yaml')]: kubelet({ ...options, host, choices, resolvConf, staticPodDir }),
    [join(cniConfDir, cniConfigName)]: renderCniConfig({
      podCidr: nodePodCidr(config.clusterCidr),
      backend: choices.proxyMode,
      ipamDir: join(paths.runDir, 'cni'),
      mtu: host.defaultRoute?.mtu,
    }),
    ...(host.resolvConf.kind === 'rendered' && { [resolvConf]: host.resolvConf.text }),
  }
  return {
    containerdConfig: file('containerd.toml'),
    kubeletConfig: file('kubelet.yaml'),
    proxyMode: choices.proxyMode,
    canSetConntrack: host.canSetConntrack,
    canLowerOomScore: host.capabilities.sysResource,
    hasNameServer: host.resolvConf.kind === 'host' || host.resolvConf.hasServer,
    async write() {
      if (host.kernel.feature('bridgeNetfilter') !== 'present') await loadModules()
      applySysctls(networkSysctls(config.clusterCidr))
      await Promise.all(
        [cniConfDir, dropInDir, staticPodDir].map((dir) => mkdir(dir, { recursive: true, mode: 0o700 })),
      )
      await Promise.all(Object.entries(texts).map(([path, text]) => writeFile(path, text, { mode: 0o600 })))
    },
  }
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

type Chosen = NodeFileOptions & { readonly host: HostFacts; readonly choices: NodeChoices }

function containerd(options: Chosen & { cniConfDir: string; dropInDir: string }): string {
  const { config, paths, payload, host, choices, cniConfDir, dropInDir } = options
  return renderContainerdConfig({
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
}

function kubelet(options: Chosen & { resolvConf: string; staticPodDir: string }): string {
  const { config, paths, pki, host, choices, resolvConf, staticPodDir } = options
  return renderKubeletConfig({
    cgroupVersion: host.cgroups.version,
    cgroupDriver: choices.cgroupDriver,
    canLowerOomScore: host.capabilities.sysResource,
    userNamespace: host.isUserNamespace,
    proxyMode: choices.proxyMode,
    containerdSocket: paths.containerdSocket,
    clientCaFile: pki.authorities.client.certFile,
    tlsCertFile: pki.leaves.kubelet.certFile,
    tlsKeyFile: pki.leaves.kubelet.keyFile,
    clusterDns: config.clusterDns,
    clusterDomain: config.clusterDomain,
    rootDir: config.kubeletRootDir,
    staticPodDir,
    resolvConf,
    nodeTaint: config.nodeTaint,
  })
}
