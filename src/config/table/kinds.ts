import { resolve } from 'node:path'
import {
  familyOf,
  formatAddress,
  formatRange,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isUnspecified,
  parseAddress,
  parseRange,
} from '../../base/address.ts'
import { parseCron } from './cron.ts'
import { isNodeName, isSubdomain, parseLabel, parseTaint, taintEffects } from './kubernetes-names.ts'
import { Refused, type ValueKind } from './option.ts'

/** What the values of options may be. Each kind parses, and says in words what it allows. */

export const boolean: ValueKind<boolean> = {
  placeholder: 'BOOL',
  allowed: 'true or false',
  choices: ['true', 'false'],
  bare: 'true',
  parse: (text) => (text === 'true' ? true : text === 'false' ? false : new Refused()),
}

export function choice<const Choice extends string>(
  ...choices: readonly [Choice, Choice, ...Choice[]]
): ValueKind<Choice> {
  return {
    placeholder: choices.join('|'),
    allowed: `${choices.slice(0, -1).join(', ')} or ${choices.at(-1)}`,
    choices,
    parse: (text) => choices.find((allowed) => allowed === text) ?? new Refused(),
  }
}

export function integer({ from, to }: { from: number; to: number }): ValueKind<number> {
  return {
    placeholder: 'NUMBER',
    allowed: `a whole number from ${from} to ${to}`,
    parse(text) {
      const value = /^(0|[1-9][0-9]{0,9})$/.test(text) ? Number(text) : Number.NaN
      return value >= from && value <= to ? value : new Refused()
    },
  }
}

/** In milliseconds. */
export const duration: ValueKind<number> = {
  placeholder: 'DURATION',
  allowed: 'a whole number with its unit, such as 500ms, 30s, 5m or 1h',
  parse(text) {
    const [, count, unit = ''] = /^(0|[1-9][0-9]{0,6})(ms|s|m|h)$/.exec(text) ?? []
    return count === undefined ? new Refused() : Number(count) * (unitMs[unit] ?? 1)
  },
}

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

const lineLimit = 200

export const line: ValueKind<string> = {
  placeholder: 'TEXT',
  allowed: `one line of at most ${lineLimit} characters`,
  parse: (text) => (text.length <= lineLimit && !/\p{Cc}/u.test(text) ? text : new Refused()),
}

/** Made absolute from the working directory. */
export const file: ValueKind<string> = {
  placeholder: 'FILE',
  allowed: 'the path of a file',
  parse: (text) => (hasControlCharacter(text) || text.endsWith('/') ? new Refused() : resolve(text)),
}

/** Made absolute from the working directory. */
export const directory: ValueKind<string> = {
  placeholder: 'DIR',
  allowed: 'the path of a directory other than /, without colons and commas',
  parse(text) {
    // Colons and commas separate the options of an overlay mount, whose layers are below it.
    const path = resolve(text)
    return path === '/' || /[:,]/.test(path) || hasControlCharacter(path) ? new Refused() : path
  },
}

/** As `directory`, and short enough for the sockets below it, of which `longestSocket` is the longest. */
export function socketDirectory({ longestSocket, limit }: { longestSocket: string; limit: number }) {
  const longest = limit - longestSocket.length - 1
  return {
    placeholder: 'DIR',
    allowed: `${directory.allowed}, of at most ${longest} bytes`,
    parse(text) {
      const path = directory.parse(text)
      return typeof path === 'string' && Buffer.byteLength(path) > longest ? new Refused() : path
    },
  } satisfies ValueKind<string>
}

/** In the form that Go prints, which the components compare. */
export const address: ValueKind<string> = {
  placeholder: 'ADDRESS',
  allowed: 'one IPv4 or IPv6 address',
  parse(text) {
    const parsed = parseAddress(text)
    return parsed === undefined ? new Refused() : formatAddress(parsed)
  },
}

/** What the kubelet takes as the address of a Node (pkg/kubelet/kubelet_node_status.go, validateNodeIP). */
export const nodeAddress: ValueKind<string> = {
  placeholder: 'ADDRESS',
  allowed:
    'one IPv4 or IPv6 address that other nodes could reach: neither loopback, link-local, multicast nor unspecified',
  parse(text) {
    const parsed = parseAddress(text)
    if (parsed === undefined) return new Refused('allowed is one IPv4 or IPv6 address')
    const isSpecial = [isLoopback, isLinkLocal, isMulticast, isUnspecified].some((is) => is(parsed))
    return isSpecial ? new Refused() : formatAddress(parsed)
  },
}

interface HostPort {
  readonly host: string
  readonly port: number
}

export type ListenAddress = HostPort | { readonly unixPath: string }

export const listenAddress: ValueKind<ListenAddress> = {
  placeholder: 'ADDRESS',
  allowed: 'HOST:PORT, [IPV6]:PORT or unix:///PATH',
  parse(text) {
    const unix = /^unix:\/\/(\/.+)$/.exec(text)
    if (unix?.[1] !== undefined) return { unixPath: unix[1] }
    const [, ipv6, name, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/]+)):([0-9]{1,5})$/.exec(text) ?? []
    const port = Number(digits)
    const host = ipv6 ?? name
    return host === undefined || !(port <= 65_535) ? new Refused() : { host, port }
  },
}

export interface HttpAddress extends HostPort {
  readonly isTls: boolean
}

export const httpAddress: ValueKind<HttpAddress> = {
  placeholder: 'ADDRESS',
  allowed: 'HOST:PORT, [IPV6]:PORT, or http:// or https:// before one of them',
  parse(text) {
    const parsed = listenAddress.parse(text.replace(/^https?:\/\//, ''))
    return 'host' in parsed ? { ...parsed, isTls: text.startsWith('https:') } : new Refused()
  },
}

/** Where a client is sent, which has to mean the same on every machine. */
export const clientUrl: ValueKind<string> = {
  placeholder: 'URL',
  allowed: 'http://HOST:PORT or https://HOST:PORT, with a host that clients can go to and nothing after it',
  parse(text) {
    const hostPort = /^https?:\/\/(.+)$/.exec(text)?.[1]
    const parsed = listenAddress.parse(hostPort ?? '')
    if (!('host' in parsed) || parsed.port === 0) return new Refused()
    const host = parseAddress(parsed.host)
    if (host === undefined) return dnsNameOrAddress.parse(parsed.host) === parsed.host ? text : new Refused()
    return isUnspecified(host) || isMulticast(host) ? new Refused() : text
  },
}

/** An API server. */
export const serverUrl: ValueKind<string> = {
  placeholder: 'URL',
  allowed: 'https://HOST:PORT, such as https://192.0.2.10:6443',
  parse: (text) => (text.startsWith('https:') ? clientUrl.parse(text) : new Refused()),
}

/** Whether it is whole, whoever reads it says; none of it is ever shown. */
export const joinToken: ValueKind<string> = {
  placeholder: 'TOKEN',
  allowed: 'a token as "k8s token create" prints it, or ID.SECRET of a bootstrap token',
  show: () => '(not shown)',
  parse: (text) => (/^[a-z0-9.-]{1,256}$/.test(text) ? text : new Refused()),
}

export const caHash: ValueKind<string> = {
  placeholder: 'HASH',
  allowed: 'sha256: and 64 hex digits',
  parse: (text) => (/^sha256:[0-9a-f]{64}$/i.test(text) ? text.toLowerCase() : new Refused()),
}

/** As --etcd-prefix of kube-apiserver, which puts a slash behind it. */
export const keyPrefix: ValueKind<string> = {
  placeholder: 'PREFIX',
  allowed: 'a path such as /registry, of letters, digits, "-", "_", "." and "/", with no slash at its end',
  parse: (text) => (/^(\/[\w.-]+)+$/.test(text) && text.length <= 200 ? text : new Refused()),
}

interface PrefixLimits {
  readonly 4: { readonly from: number; readonly to: number }
  readonly 6: { readonly from: number; readonly to: number }
}

export function range(limits: PrefixLimits): ValueKind<string> {
  return {
    placeholder: 'CIDR',
    allowed: `one range, IPv4 with a prefix of ${limits[4].from} to ${limits[4].to} or IPv6 with ${limits[6].from} to ${limits[6].to}`,
    parse(text) {
      const parsed = parseRange(text)
      if (parsed === undefined) return new Refused()
      const { from, to } = limits[parsed.first.family]
      if (parsed.prefix < from || parsed.prefix > to) return new Refused()
      const canonical = formatRange(parsed)
      const given = parseAddress(text.slice(0, text.indexOf('/')))
      return given?.bits === parsed.first.bits ? canonical : new Refused(`the range is ${canonical}`)
    },
  }
}

/** One, or one of each family: what is written first is the cluster's first family. The value has a comma between them. */
export function ofEachFamily(kind: ValueKind<string>): ValueKind<string> {
  const oneOrTwo = 'allowed is one, or one of each family'
  return {
    placeholder: `${kind.placeholder}[,${kind.placeholder}]`,
    allowed: `${kind.allowed}; or one of each family, with a comma between them`,
    joinedBy: ',',
    parse(text) {
      const parts = text.split(',').map((part) => part.trim())
      if (parts.length > 2) return new Refused(`there are ${parts.length}; ${oneOrTwo}`)
      const values: string[] = []
      for (const part of parts) {
        const value = kind.parse(part)
        if (typeof value === 'string') values.push(value)
        else if (parts.length === 1) return value
        else return new Refused(value.reason && `of "${part}", ${value.reason}`)
      }
      const [first = '', second] = values
      if (second !== undefined && familyOf(first) === familyOf(second))
        return new Refused(`both are IPv${familyOf(first)}; ${oneOrTwo}`)
      return values.join(',')
    },
  }
}

/** A schedule as in crontab(5), or none. */
export const schedule: ValueKind<string> = {
  placeholder: 'CRON',
  allowed: 'none, or five fields as in crontab(5): minute, hour, day of the month, month, day of the week',
  parse: (text) => (text === 'none' || parseCron(text) !== undefined ? text : new Refused()),
}

export const nodeName: ValueKind<string> = {
  placeholder: 'NAME',
  allowed: 'a DNS name of at most 63 characters: lower-case letters, digits, "-" and "."',
  parse: (text) => (isNodeName(text) ? text : new Refused()),
}

export const domain: ValueKind<string> = {
  placeholder: 'DOMAIN',
  allowed: 'a DNS name in lower case, such as cluster.local',
  parse: (text) => (isSubdomain(text) ? text : new Refused()),
}

export const dnsNameOrAddress: ValueKind<string> = {
  placeholder: 'NAME',
  allowed: 'a DNS name in lower case (its first part may be *) or an IPv4 or IPv6 address',
  parse(text) {
    const parsed = parseAddress(text)
    if (parsed !== undefined) return formatAddress(parsed)
    // "10.0.0" or "10.0.0.300" would pass as a name and never match what was meant.
    return isSubdomain(text.replace(/^\*\./, '')) && !/^[0-9.]+$/.test(text) ? text : new Refused()
  },
}

export const label: ValueKind<string> = {
  placeholder: 'KEY=VALUE',
  allowed: "a label KEY=VALUE in Kubernetes' syntax, such as example.com/disk=ssd",
  parse: parseLabel,
}

export const taint: ValueKind<string> = {
  placeholder: 'KEY=VALUE:EFFECT',
  allowed: `a taint KEY=VALUE:EFFECT or KEY:EFFECT with an effect of ${taintEffects.join(', ')}`,
  parse: parseTaint,
}

function hasControlCharacter(given: string): boolean {
  return /\p{Cc}/u.test(given)
}
