import { canUseNftables, chooseForNode } from '../facts/choices.ts'
import type { HostFacts } from '../facts/host.ts'
import type { Feature } from '../facts/kernel.ts'
import type { Examination } from './examination.ts'
import { minimums } from './minimums.ts'
import { missing, ok, type Requirement, warning } from './requirement.ts'
import { ipv6Fault, networkSysctls, sysctlPath } from '../render/sysctls.ts'

/** As kubeadm's system validator has it (k8s.io/system-validators). */
const requiredControllers = {
  1: ['cpu', 'cpuacct', 'cpuset', 'devices', 'freezer', 'memory', 'pids'],
  2: ['cpu', 'cpuset', 'memory', 'pids'],
} as const

/** What the kubelet writes at its start, ending when it cannot (cm/container_manager_linux.go: setupKernelTunables). */
const kubeletTunables = {
  'vm.overcommit_memory': '1',
  'vm.panic_on_oom': '0',
  'kernel.panic': '10',
  'kernel.panic_on_oops': '1',
  'kernel.keys.root_maxkeys': '1000000',
  'kernel.keys.root_maxbytes': '25000000',
} as const

/** `least` are the kernel's own defaults (of the smallest machines): a lower limit was set by someone. */
const inotifyLimits = {
  max_user_instances: { least: 128, wanted: 512 },
  max_user_watches: { least: 8_192, wanted: 524_288 },
} as const

export function kernelRequirements(examination: Examination): Requirement[] {
  return [
    kernelVersion(examination),
    controllers(examination),
    cgroupDriver(examination),
    ...overlay(examination),
    proxyRules(examination),
    kernelFeature(examination, { name: 'bridge', feature: 'bridge', module: 'bridge' }),
    kernelFeature(examination, { name: 'veth', feature: 'veth', module: 'veth' }),
    bridgeNetfilter(examination),
    ...vxlan(examination),
    ...forwarding(examination),
    tunables(examination),
    kernelLog(examination),
    swap(examination),
    inotify(examination),
  ]
}

function kernelVersion({ host: { kernel } }: Examination): Requirement {
  const { major, minor } = minimums.kernel
  if (kernel.isAtLeast(major, minor)) return ok('kernel', kernel.release)
  return missing(
    'kernel',
    `${kernel.release}; ${major}.${minor} or later is needed`,
    'install a newer kernel',
  )
}

function controllers({ host: { cgroups } }: Examination): Requirement {
  const name = 'cgroups'
  if (cgroups.layout === 'none') {
    return missing(name, 'no cgroups are mounted at /sys/fs/cgroup', 'mount cgroup2 at /sys/fs/cgroup')
  }
  const absent = requiredControllers[cgroups.version].filter(
    (controller) => !cgroups.controllers.includes(controller),
  )
  if (absent.length > 0) {
    return missing(
      name,
      `v${cgroups.version} without ${absent.join(', ')}`,
      'add cgroup_enable=memory (or the controller that is missing) to the kernel command line and reboot; in a container, delegate the controllers to it',
    )
  }
  return ok(
    name,
    `v${cgroups.version}${cgroups.layout === 'hybrid' ? ' (hybrid)' : ''} with ${cgroups.controllers.join(', ')}`,
  )
}

function cgroupDriver({ config, host }: Examination): Requirement {
  const { cgroupDriver: driver } = chooseForNode(config, host)
  if (driver === 'systemd' && !host.isSystemd) {
    return missing(
      'cgroup driver',
      'systemd is not process 1',
      'leave --cgroup-driver out, or set it to cgroupfs',
    )
  }
  return ok('cgroup driver', driver)
}

function overlay({ config, host }: Examination): Requirement[] {
  if (config.snapshotter !== 'overlayfs') return []
  return [
    host.kernel.feature('overlay') === 'absent'
      ? missing('overlayfs', 'this kernel has no overlay file system', 'use --snapshotter=native')
      : ok('overlayfs', host.kernel.feature('overlay')),
  ]
}

function proxyRules({ config, host }: Examination): Requirement {
  const { proxyMode } = chooseForNode(config, host)
  const name = proxyMode
  if (proxyMode === 'nftables') {
    if (canUseNftables(host))
      return ok(name, `${host.kernel.nftables()} in the kernel, ${host.command('nft')}`)
    return missing(
      name,
      nftablesGap(host),
      `install nftables and a kernel from ${minimums.nftablesKernel.major}.${minimums.nftablesKernel.minor} on, or use --kube-proxy-mode=iptables`,
    )
  }
  if (host.command('iptables') === undefined || host.kernel.feature('iptables') === 'absent') {
    return missing(name, `no iptables, and ${nftablesGap(host)}`, 'install the package nftables or iptables')
  }
  if (config.clusterCidr.includes(':') && host.command('ip6tables') === undefined)
    return missing(
      name,
      'no ip6tables, which IPv6 needs',
      'install the package iptables with it, or nftables',
    )
  return ok(name, `${host.command('iptables')}; ${nftablesGap(host)}`)
}

function nftablesGap(host: HostFacts): string {
  const { major, minor } = minimums.nftablesKernel
  if (!host.kernel.isAtLeast(major, minor)) return `nftables mode needs kernel ${major}.${minor}`
  if (host.kernel.nftables() === 'absent') return 'this kernel has no nftables'
  return host.command('nft') === undefined
    ? 'the program nft is not installed'
    : 'it is not known whether this kernel has nftables'
}

function kernelFeature(
  { host }: Examination,
  wanted: { name: string; feature: Feature; module: string },
): Requirement {
  const state = host.kernel.feature(wanted.feature)
  return state === 'absent'
    ? missing(
        wanted.name,
        `this kernel has no ${wanted.module}`,
        `use a kernel with the module ${wanted.module}`,
      )
    : ok(wanted.name, state)
}

/** No request of the kernel's own loads it, unlike the others. */
function bridgeNetfilter({ host }: Examination): Requirement {
  const name = 'br_netfilter'
  const state = host.kernel.feature('bridgeNetfilter')
  const consequence = 'a pod cannot reach a Service whose pod is on the same node'
  switch (state) {
    case 'present':
      return ok(name, state)
    case 'absent':
      return missing(
        name,
        `this kernel has no ${name}: ${consequence}`,
        `use a kernel with the module ${name}`,
      )
    default:
      return warning(name, `not loaded: ${consequence}`, `modprobe ${name} (systemd/k8s.service does)`)
  }
}

/** A Node alone needs none. */
function vxlan({ config, host }: Examination): Requirement[] {
  const name = 'vxlan'
  if (config.networkBackend !== 'vxlan' || config.cniConfDir !== undefined) return []
  const state = host.kernel.feature('vxlan')
  if (state !== 'absent') return [ok(name, state)]
  return [
    warning(
      name,
      'this kernel has none: pods of different nodes do not reach each other',
      'use a kernel with the module vxlan, or --network-backend=host-gw where all nodes are on one network',
    ),
  ]
}

function sysctl({ files }: Examination, name: string, value: string): Requirement {
  const path = sysctlPath(name)
  if (files.read(path)?.trim() === value) return ok(name, value)
  if (files.isWritable(path)) return ok(name, `set to ${value} at the start`)
  return missing(name, `not ${value}, and cannot be written here`, `sysctl -w ${name}=${value} on the host`)
}

/** Where IPv6 is turned off, that is what is said, and not which of its settings cannot be written. */
function forwarding(examination: Examination): Requirement[] {
  const { config, files } = examination
  const fault = config.clusterCidr.includes(':') ? ipv6Fault(files) : undefined
  const rows = networkSysctls(config.clusterCidr, files).filter(
    ({ name, required }) => required && (fault === undefined || !name.startsWith('net.ipv6.')),
  )
  return [
    ...(fault === undefined
      ? []
      : [
          missing(
            'IPv6',
            `${fault}, and cluster-cidr is ${config.clusterCidr}`,
            'turn it on, or choose ranges of IPv4 alone',
          ),
        ]),
    ...rows.map(({ name, value }) => sysctl(examination, name, value)),
  ]
}

function tunables({ files, host }: Examination): Requirement {
  const name = 'kernel settings'
  const wrong = Object.entries(kubeletTunables).filter(([key, value]) => {
    const path = sysctlPath(key)
    return files.read(path)?.trim() !== value && !files.isWritable(path)
  })
  if (wrong.length === 0) return ok(name, 'as the kubelet sets them, or writable')
  const settings = wrong.map(([key, value]) => `${key}=${value}`).join(' ')
  if (host.isUserNamespace) return warning(name, `left as they are in this user namespace: ${settings}`)
  return missing(
    name,
    'the kubelet must set some that cannot be written here',
    `sysctl -w ${settings} on the host`,
  )
}

function kernelLog({ files, host }: Examination): Requirement {
  if (files.exists('/dev/kmsg')) return ok('/dev/kmsg', 'present')
  if (host.isUserNamespace)
    return warning('/dev/kmsg', 'absent: processes killed for memory are not reported')
  return missing('/dev/kmsg', 'absent: the kubelet ends without it', 'give the container /dev/kmsg')
}

function swap({ host }: Examination): Requirement {
  if (!host.hasSwap) return ok('swap', 'none')
  if (host.cgroups.version === 2) return ok('swap', 'on; pods do not get any')
  return warning(
    'swap',
    'on: with cgroup v1 pods beyond their limit swap instead of being ended',
    'swapoff -a',
  )
}

function inotify({ files }: Examination): Requirement {
  const name = 'inotify'
  const low = Object.entries(inotifyLimits).flatMap(([limit, { least, wanted }]) => {
    const value = Number(files.read(`/proc/sys/fs/inotify/${limit}`))
    return value < least ? [{ limit, value, wanted }] : []
  })
  if (low.length === 0) return ok(name, 'as much as the kernel gives by itself, or more')
  return warning(
    name,
    `${low.map(({ limit, value }) => `${limit} is ${value}`).join(', ')}: many pods or \`kubectl logs -f\` use them up`,
    `sysctl -w ${low.map(({ limit, wanted }) => `fs.inotify.${limit}=${wanted}`).join(' ')}`,
  )
}
