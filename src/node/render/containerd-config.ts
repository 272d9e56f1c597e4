import { join } from 'node:path'

export interface ContainerdOptions {
  /** Images and snapshots; survives a reboot. */
  readonly root: string
  /** Sockets, bundles and network namespaces of what runs. */
  readonly state: string
  readonly socket: string
  /** A directory whose *.toml files are laid over this one. */
  readonly dropInDir: string
  readonly snapshotter: 'overlayfs' | 'native'
  /** The image that holds a pod's namespaces; imported beforehand, never pulled. */
  readonly pauseImage: string
  readonly shim: string
  readonly runc: string
  /** Where CNI plugins are looked for, in that order. */
  readonly cniBinDirs: readonly string[]
  readonly cniConfDir: string
  readonly cgroupDriver: 'systemd' | 'cgroupfs'
  /** CAP_SYS_RESOURCE: lower OOM scores than one's own can be given. */
  readonly canLowerOomScore: boolean
}

/** Below kube-apiserver's and the kubelet's -999: without containerd no container can be watched. */
const oomScore = -999

/**
 * Off, as nothing here asks for them: NRI (a socket in /var/run), installing programs to /opt, restarts
 * of containers that Kubernetes did not make, prometheus counters that no port shows.
 */
const disabledPlugins = [
  'io.containerd.internal.v1.opt',
  'io.containerd.monitor.container.v1.restart',
  'io.containerd.monitor.task.v1.cgroups',
  'io.containerd.nri.v1.nri',
]

/**
 * containerd's configuration in the version of the 2.4 that is packed (4: servers are plugins). The
 * ttrpc socket is where shims report the end of containers. netns_mounts_under_state_dir: what `k8s reset` has to
 * unmount is then all below directories of its own. stats_collect_period is cAdvisor's; containerd's own
 * second costs idle CPU for figures that the kubelet reads every ten.
 */
export function renderContainerdConfig(options: ContainerdOptions): string {
  const { root, state, socket, dropInDir, snapshotter, cgroupDriver, canLowerOomScore } = options
  return `version = 4
root = ${quote(root)}
state = ${quote(state)}
${canLowerOomScore ? `oom_score = ${oomScore}\n` : ''}imports = [${quote(join(dropInDir, '*.toml'))}]
disabled_plugins = [
${disabledPlugins.map((plugin) => `  ${quote(plugin)},`).join('\n')}
]

[plugins."io.containerd.server.v1.grpc"]
address = ${quote(socket)}

[plugins."io.containerd.server.v1.ttrpc"]
address = ${quote(`${socket}.ttrpc`)}

[plugins."io.containerd.grpc.v1.cri"]
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.cri.v1.images"]
snapshotter = ${quote(snapshotter)}

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = ${quote(options.pauseImage)}

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = ${!canLowerOomScore}
netns_mounts_under_state_dir = true
stats_collect_period = "10s"

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [${options.cniBinDirs.map(quote).join(', ')}]
conf_dir = ${quote(options.cniConfDir)}
use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = ${quote(options.shim)}

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = ${quote(options.runc)}
Root = ${quote(join(state, 'runc'))}
SystemdCgroup = ${cgroupDriver === 'systemd'}
`
}

/** A JSON string is a basic string of TOML. */
function quote(text: string): string {
  return JSON.stringify(text)
}
