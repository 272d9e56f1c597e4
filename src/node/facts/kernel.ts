import type { HostFiles } from './host-files.ts'

/**
 * present: it works now; loadable: a module that the kernel loads when it is asked for; absent: this
 * kernel has not got it; unknown: nothing on this machine tells (containers often hide it).
 */
type FeatureState = 'present' | 'loadable' | 'absent' | 'unknown'

/** What a node asks of the kernel: the option that builds it, the module that may carry it. */
const features = {
  overlay: { option: 'OVERLAY_FS', module: 'overlay' },
  bridge: { option: 'BRIDGE', module: 'bridge' },
  veth: { option: 'VETH', module: 'veth' },
  vxlan: { option: 'VXLAN', module: 'vxlan' },
  bridgeNetfilter: { option: 'BRIDGE_NETFILTER', module: 'br_netfilter' },
  conntrack: { option: 'NF_CONNTRACK', module: 'nf_conntrack' },
  nftables: { option: 'NF_TABLES', module: 'nf_tables' },
  nftNat: { option: 'NFT_NAT', module: 'nft_chain_nat' },
  nftMasquerade: { option: 'NFT_MASQ', module: 'nft_masq' },
  nftConntrack: { option: 'NFT_CT', module: 'nft_ct' },
  nftNumgen: { option: 'NFT_NUMGEN', module: 'nft_numgen' },
  nftFib: { option: 'NFT_FIB_IPV4', module: 'nft_fib_ipv4' },
  nftReject: { option: 'NFT_REJECT', module: 'nft_reject' },
  iptables: { option: 'IP_NF_IPTABLES', module: 'ip_tables' },
} as const
export type Feature = keyof typeof features

/** kube-proxy's nftables mode asks for all of them (pkg/proxy/nftables/proxier.go). */
const nftablesFeatures: readonly Feature[] = [
  'nftables',
  'nftNat',
  'nftMasquerade',
  'nftConntrack',
  'nftNumgen',
  'nftFib',
  'nftReject',
]

/** From the best to the worst, for a mode that needs several. */
const order: readonly FeatureState[] = ['present', 'loadable', 'unknown', 'absent']

export interface Kernel {
  /** 6.18.44-amd64 */
  readonly release: string
  /** At least this version; an unreadable release counts as new. */
  isAtLeast(major: number, minor: number): boolean
  feature(feature: Feature): FeatureState
  nftables(): FeatureState
}

export function readKernel(files: HostFiles): Kernel {
  const release = files.read('/proc/sys/kernel/osrelease')?.trim() ?? ''
  const sources = once(() => readSources(files, release))
  const feature = (name: Feature): FeatureState => {
    if (files.exists(`/sys/module/${features[name].module}`) || isInUse(files, name)) return 'present'
    return stateFrom(sources(), features[name])
  }
  return {
    release,
    isAtLeast: (major, minor) => compareRelease(release, major, minor),
    feature,
    nftables: () =>
      nftablesFeatures
        .map(feature)
        .reduce((worst, state) => (order.indexOf(state) > order.indexOf(worst) ? state : worst)),
  }
}

interface Sources {
  /** CONFIG_X=y and CONFIG_X=m lines; undefined: the kernel's configuration is not to be found. */
  readonly config: string | undefined
  readonly builtin: string
  readonly loadable: string
}

function readSources(files: HostFiles, release: string): Sources {
  return {
    config: files.readGzip('/proc/config.gz') ?? files.read(`/boot/config-${release}`),
    builtin: files.read(`/lib/modules/${release}/modules.builtin`) ?? '',
    loadable: files.read(`/lib/modules/${release}/modules.dep`) ?? '',
  }
}

function stateFrom(
  { config, builtin, loadable }: Sources,
  { option, module }: { option: string; module: string },
): FeatureState {
  const built = config && new RegExp(`^CONFIG_${option}=(y|m)$`, 'm').exec(config)?.[1]
  const file = new RegExp(`/${module}\\.ko\\b`)
  if (built === 'y' || file.test(builtin)) return 'present'
  if (file.test(loadable)) return 'loadable'
  if (config === undefined) return loadable === '' ? 'unknown' : 'absent'
  // As a module, but none is installed here: a container may run on a host that has loaded it.
  return built === 'm' ? 'unknown' : 'absent'
}

/** Traces of features that leave no directory in /sys/module. */
function isInUse(files: HostFiles, name: Feature): boolean {
  switch (name) {
    case 'overlay':
      return /^\S*\toverlay$/m.test(files.read('/proc/filesystems') ?? '')
    case 'bridgeNetfilter':
      return files.exists('/proc/sys/net/bridge/bridge-nf-call-iptables')
    case 'conntrack':
      return files.exists('/proc/sys/net/netfilter/nf_conntrack_max')
    default:
      return false
  }
}

function compareRelease(release: string, major: number, minor: number): boolean {
  const match = /^(\d+)\.(\d+)/.exec(release)
  if (match === null) return true
  const [actualMajor, actualMinor] = [Number(match[1]), Number(match[2])]
  return actualMajor > major || (actualMajor === major && actualMinor >= minor)
}

function once<T>(compute: () => T): () => T {
  let value: { readonly computed: T } | undefined
  return () => (value ??= { computed: compute() }).computed
}
