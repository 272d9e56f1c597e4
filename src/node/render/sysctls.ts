import { writeFileSync } from 'node:fs'
import { AppError, describeError } from '../../base/errors.ts'
import { HostFiles } from '../facts/host-files.ts'

interface Sysctl {
  /** As sysctl(8) names it. */
  readonly name: string
  readonly value: string
  /** Without it no pod is reached; else only where the kernel has it. */
  readonly required: boolean
}

/** What pods need of the host's network stack. IPv6 is left alone in a cluster without it. */
export function networkSysctls(clusterCidr: string): readonly Sysctl[] {
  const sysctls: Sysctl[] = [
    { name: 'net.ipv4.ip_forward', value: '1', required: true },
    // Between pods of one bridge, answers must pass the rules that translated the requests.
    { name: 'net.bridge.bridge-nf-call-iptables', value: '1', required: false },
  ]
  if (!clusterCidr.includes(':')) return sysctls
  return [
    ...sysctls,
    { name: 'net.ipv6.conf.all.forwarding', value: '1', required: true },
    { name: 'net.bridge.bridge-nf-call-ip6tables', value: '1', required: false },
  ]
}

export function sysctlPath(name: string): string {
  return `/proc/sys/${name.replaceAll('.', '/')}`
}

/** Writes those that differ; repeatable. Throws when a required one cannot be set. */
export function applySysctls(sysctls: readonly Sysctl[], { root = '/' }: { root?: string } = {}): void {
  const files = new HostFiles(root)
  for (const { name, value, required } of sysctls) {
    const path = sysctlPath(name)
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
