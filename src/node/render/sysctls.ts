import { writeFileSync } from 'node:fs'
import { familyOf, ofFamilies } from '../../base/address.ts'
import { AppError, describeError } from '../../base/errors.ts'
import { isUplink } from '../facts/addresses.ts'
import { HostFiles } from '../facts/host-files.ts'

interface Sysctl {
  /** As sysctl(8) names it. */
  readonly name: string
  readonly value: string
  /** Without it no pod is reached; else only where the kernel has it. */
  readonly required: boolean
  /** Where it is not one of sysctl(8). */
  readonly path?: string
}

/** What pods need of the host's network stack, in each family of the cluster; IPv6 is left alone in a cluster without it. */
export function networkSysctls(clusterCidr: string, files = new HostFiles()): readonly Sysctl[] {
  return ofFamilies(clusterCidr).flatMap((cidr) => (familyOf(cidr) === 4 ? sysctlsIPv4 : sysctlsIPv6(files)))
}

const sysctlsIPv4: readonly Sysctl[] = [
  { name: 'net.ipv4.ip_forward', value: '1', required: true },
  // Between pods of one bridge, answers must pass the rules that translated the requests.
  { name: 'net.bridge.bridge-nf-call-iptables', value: '1', required: false },
]

function sysctlsIPv6(files: HostFiles): Sysctl[] {
  return [
    ...routersHeeded(files),
    { name: 'net.ipv6.conf.all.forwarding', value: '1', required: true },
    { name: 'net.bridge.bridge-nf-call-ip6tables', value: '1', required: false },
  ]
}

/**
 * A machine that forwards passes over what routers tell, and would lose its address and its default route by that: interfaces
 * that have heeded them (accept_ra 1) go on to. Those to come are left alone, since pods could tell them anything.
 */
function routersHeeded(files: HostFiles): Sysctl[] {
  const conf = '/proc/sys/net/ipv6/conf'
  if (files.read(`${conf}/all/forwarding`)?.trim() === '1') return []
  return files
    .list(conf)
    .filter((name) => isUplink(files, name) && files.read(`${conf}/${name}/accept_ra`)?.trim() === '1')
    .map((name) => ({ name: `net/ipv6/conf/${name}/accept_ra`, value: '2', required: false }))
}

/** Why a cluster with IPv6 cannot run here; undefined: it can. */
export function ipv6Fault(files = new HostFiles()): string | undefined {
  const conf = '/proc/sys/net/ipv6/conf/default'
  if (!files.exists(conf)) return 'this kernel has IPv6 turned off (ipv6.disable=1?)'
  return files.read(`${conf}/disable_ipv6`)?.trim() === '1'
    ? 'IPv6 is turned off here (net.ipv6.conf.default.disable_ipv6 is 1)'
    : undefined
}

/** Names of interfaces have dots in them, too: with slashes between its parts a name is taken as it is. */
export function sysctlPath(name: string): string {
  return `/proc/sys/${name.includes('/') ? name : name.replaceAll('.', '/')}`
}

/**
 * Without these, what pods of one node send each other passes no rule. Whoever loads a file of sysctls may set those of all bridges
 * back; then the bridge's own, where there is one yet, holds.
 */
export function bridgeSettings(bridge: string): readonly Sysctl[] {
  return ['iptables', 'ip6tables'].flatMap((family) => [
    { name: `net.bridge.bridge-nf-call-${family}`, value: '1', required: true },
    {
      ...{ name: `nf_call_${family} of ${bridge}`, value: '1', required: false },
      path: `/sys/class/net/${bridge}/bridge/nf_call_${family}`,
    },
  ])
}

/** Writes those that differ; repeatable. Throws when a required one cannot be set. */
export function applySysctls(sysctls: readonly Sysctl[], { root = '/' }: { root?: string } = {}): void {
  const files = new HostFiles(root)
  for (const { name, value, required, path = sysctlPath(name) } of sysctls) {
    if (files.read(path)?.trim() === value) continue
    if (!files.exists(path) && !required) continue
    try {
      writeFileSync(files.path(path), value)
    } catch (cause) {
      if (!required) continue
      throw new AppError(
        `cannot set ${name} to ${value}`,
        {
          code: 'SYSCTL',
          remedy: `set it on the host (sysctl -w ${name}=${value}): ${describeError(cause)}`,
        },
        { cause },
      )
    }
  }
}
