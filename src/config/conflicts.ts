import { isAbsolute, relative } from 'node:path'
import {
  type Address,
  addressAt,
  contains,
  familyOf,
  firstOf,
  isLoopback,
  ofFamilies,
  overlaps,
  parseAddress,
  parseRange,
  type Range,
} from '../base/address.ts'
import type {
  AgentConfig,
  AnyConfig,
  Config,
  DatastoreConfig,
  KubeletConfig,
  MachineConfig,
  NodeConfig,
} from './config.ts'
import { portsOfRole } from './ports.ts'
import { paths as pathsOf } from './paths.ts'
import type { SettingName } from './schema.ts'
import type { JoinSettings } from './settings/join.ts'
import { refusedAccessFlag } from './settings/pass-through.ts'
import { disableableOnAgents } from './settings/server.ts'

/** A setting that cannot go with the others, and why. */
interface Conflict {
  readonly name: SettingName
  readonly reason: string
}

/** How another setting is called in a reason: with its value and where it comes from. */
type Describe = (name: SettingName) => string

/** Whether somebody has said it, and it is no default. */
type IsGiven = (name: SettingName) => boolean

/** The first combination that could not work; each setting by itself is valid. */
export function findConflict(config: AnyConfig, describe: Describe, isGiven: IsGiven): Conflict | undefined {
  return allOf(config, describe, isGiven).find((conflict) => conflict !== undefined)
}

function allOf(config: AnyConfig, describe: Describe, isGiven: IsGiven): (Conflict | undefined)[] {
  switch (config.role) {
    case 'server':
      return serverRules.map((rule) => rule(config, describe, isGiven))
    case 'agent':
      return agentRules.map((rule) => rule(config, describe, isGiven))
    case 'kubelet':
      return kubeletRules.map((rule) => rule(config, describe, isGiven))
    case 'datastore':
      return datastoreRules.map((rule) => rule(config, describe, isGiven))
  }
}

type Rule<Given> = (config: Given, describe: Describe, isGiven: IsGiven) => Conflict | undefined

const serverRules: readonly Rule<Config>[] = [
  ...[families, ranges, nodeAddressOutsideRanges, clusterDns].map(ofKnownRanges),
  listenPort,
  directories,
  labels,
  taints,
  kubeProxy,
  otherNetwork,
  ownMetrics,
  localStorage,
  whoseEtcd,
  etcdTimes,
  etcdFiles,
  etcdSchemes,
  tokens,
]

const agentRules: readonly Rule<AgentConfig>[] = [
  directories,
  labels,
  taints,
  kubeProxy,
  otherNetwork,
  ownMetrics,
  disabledElsewhere,
  tokens,
]

const kubeletRules: readonly Rule<KubeletConfig>[] = [directories, labels, ownMetrics, accessByFlags, runtime]

const datastoreRules: readonly Rule<DatastoreConfig>[] = [
  tlsFiles,
  tlsOnSockets,
  clientCertAuth,
  openToOthers,
  metricsOpenToOthers,
  advertisedScheme,
]

/** A further server learns the ranges of the cluster that it joins, and is looked at again then. */
function ofKnownRanges(rule: Rule<Config>): Rule<Config> {
  return (config, describe, isGiven) => {
    const isToLearn = (config.server ?? []).length > 0 && !isGiven('service-cidr')
    return isToLearn ? undefined : rule(config, describe, isGiven)
  }
}

function families(config: Config, describe: Describe): Conflict | undefined {
  const wanted = ofFamilies(config.serviceCidr).map(familyOf)
  const own = ofFamilies(config.clusterCidr).map(familyOf)
  const service = `${describe('service-cidr')} is ${familyNames(wanted)}`
  if (own.join() !== wanted.join()) {
    const rule =
      own.length === 1 && wanted.length === 1
        ? 'both have to be of one family'
        : 'both have to be of the same families, in one order'
    return { name: 'cluster-cidr', reason: `it is ${familyNames(own)}, and ${service}; ${rule}` }
  }
  const others: readonly [SettingName, string | undefined, readonly (4 | 6)[]][] = [
    ['node-ip', config.nodeIp, wanted],
    // What has but one address has it of the first family.
    ['advertise-address', config.advertiseAddress, wanted.slice(0, 1)],
    ['cluster-dns', config.clusterDns, wanted.slice(0, 1)],
  ]
  for (const [name, texts, allowed] of others) {
    const foreign =
      texts === undefined
        ? []
        : ofFamilies(texts)
            .map(familyOf)
            .filter((family) => !allowed.includes(family))
    if (foreign.length === 0) continue
    const rule = wanted.length === 1 ? 'both have to be of one family' : 'it has to be of the first family'
    return { name, reason: `it is ${familyNames(foreign)}, and ${service}; ${rule}` }
  }
  return undefined
}

function familyNames(families: readonly (4 | 6)[]): string {
  return families.map((family) => `IPv${family}`).join(' and ')
}

function ranges(config: Config, describe: Describe): Conflict | undefined {
  const isTaken = ofFamilies(config.clusterCidr).some((pods) =>
    ofFamilies(config.serviceCidr).some((services) => overlaps(rangeOf(pods), rangeOf(services))),
  )
  return isTaken
    ? { name: 'cluster-cidr', reason: `it overlaps with ${describe('service-cidr')}` }
    : undefined
}

function nodeAddressOutsideRanges(config: Config, describe: Describe): Conflict | undefined {
  if (config.nodeIp === undefined) return undefined
  const addresses = ofFamilies(config.nodeIp).map(addressOf)
  const name = (['cluster-cidr', 'service-cidr'] as const).find((candidate) =>
    ofFamilies(candidate === 'cluster-cidr' ? config.clusterCidr : config.serviceCidr)
      .map(rangeOf)
      .some((range) => addresses.some((address) => contains(range, address))),
  )
  const reason = `${describe('node-ip')} lies in it; the node needs an address outside`
  return name && { name, reason }
}

function clusterDns(config: Config, describe: Describe): Conflict | undefined {
  const range = rangeOf(firstOf(config.serviceCidr))
  const address = addressOf(config.clusterDns)
  if (!contains(range, address)) {
    return { name: 'cluster-dns', reason: `it lies outside of ${describe('service-cidr')}` }
  }
  const offset = Number(address.bits - range.first.bits)
  if (offset === 0)
    return { name: 'cluster-dns', reason: `it is the network address of ${describe('service-cidr')}` }
  if (offset === 1) {
    return {
      name: 'cluster-dns',
      reason: `the first address of ${describe('service-cidr')} is that of the API server`,
    }
  }
  return undefined
}

function listenPort({ httpsListenPort, serverMode, clusterInit }: Config): Conflict | undefined {
  const taken = portsOfRole(serverMode, { clusterInit })
  const holder = taken.find(({ number }) => number === httpsListenPort)?.holder
  return holder === undefined
    ? undefined
    : {
        name: 'https-listen-port',
        reason: `${holder} has that port; allowed is any but ${taken.map(({ number }) => number).join(', ')}`,
      }
}

function directories({ dataDir, kubeletRootDir }: MachineConfig, describe: Describe): Conflict | undefined {
  if (!isInside(dataDir, kubeletRootDir)) return undefined
  return {
    name: 'data-dir',
    reason: `it lies in ${describe('kubelet-root-dir')}, which is the kubelet's alone; the other way round is allowed`,
  }
}

function labels({ nodeLabel }: MachineConfig): Conflict | undefined {
  const repeated = firstRepeated(nodeLabel.map((label) => label.slice(0, label.indexOf('='))))
  return repeated === undefined
    ? undefined
    : { name: 'node-label', reason: `the label ${repeated} is there more than once` }
}

/** pkg/util/taints, ParseTaints: key and effect together have to be unique. */
function taints({ nodeTaint }: NodeConfig): Conflict | undefined {
  const repeated = firstRepeated(nodeTaint.map((taint) => taint.replace(/=[^:]*/, '')))
  return repeated === undefined
    ? undefined
    : { name: 'node-taint', reason: `the taint ${repeated} is there more than once` }
}

function kubeProxy(config: NodeConfig, describe: Describe): Conflict | undefined {
  if (!config.disable.includes('kube-proxy')) return undefined
  const reason = `${describe('disable')} leaves kube-proxy out`
  if (config.kubeProxyMode !== 'auto') return { name: 'kube-proxy-mode', reason }
  if (config.kubeProxyArg.length > 0) return { name: 'kube-proxy-arg', reason }
  return undefined
}

/** What other things are in would be closed to others, or go with them. */
function localStorage(config: Config, describe: Describe, isGiven: IsGiven): Conflict | undefined {
  if (!isGiven('local-storage-path')) return undefined
  const name = 'local-storage-path'
  const { disable, localStoragePath: path, kubeletRootDir, dataDir } = config
  if (disable.includes('local-storage')) return { name, reason: `${describe('disable')} leaves volumes out` }
  if (isInside(path, kubeletRootDir))
    return { name, reason: `it lies in ${describe('kubelet-root-dir')}, which is the kubelet's alone` }
  const { storageDir } = pathsOf({ dataDir })
  if (isInside(path, dataDir) && !isInside(path, storageDir))
    return { name, reason: `it lies in ${describe('data-dir')}, where allowed is ${storageDir}` }
  if (isInside(dataDir, path))
    return { name, reason: `${describe('data-dir')} lies in it; allowed is a directory of their own` }
  return undefined
}

/** Rules of policies rest on what the own network says of its pods, and on its bridge. */
function otherNetwork({ cniConfDir, disable }: NodeConfig): Conflict | undefined {
  if (cniConfDir === undefined || disable.includes('network-policy')) return undefined
  return {
    name: 'cni-conf-dir',
    reason:
      'network policies are enforced for pods of the own network alone; give --disable=network-policy, too',
  }
}

function disabledElsewhere({ disable }: AgentConfig): Conflict | undefined {
  const foreign = disable.find((part) => !disableableOnAgents.includes(part))
  if (foreign === undefined) return undefined
  return {
    name: 'disable',
    reason: `${foreign} is a part of the servers; of an agent allowed are ${disableableOnAgents.join(' and ')}`,
  }
}

function tokens(
  { token, tokenFile }: Pick<Partial<JoinSettings>, 'token' | 'tokenFile'>,
  describe: Describe,
): Conflict | undefined {
  if (token === undefined || tokenFile === undefined) return undefined
  return { name: 'token-file', reason: `${describe('token')} is there, too; leave one of them away` }
}

const ofOthersEtcd = ['etcd-endpoints', 'etcd-ca-file', 'etcd-cert-file', 'etcd-key-file'] as const
const ofMembers = [
  'quota-backend-bytes',
  'etcd-heartbeat-interval',
  'etcd-election-timeout',
  'etcd-arg',
] as const

/** An etcd is the servers' own, or one that others run. */
function whoseEtcd(config: Config, describe: Describe, isGiven: IsGiven): Conflict | undefined {
  const { serverMode, clusterInit = false, server = [] } = config
  if (serverMode === 'single') return undefined
  // Of a cluster that is to be joined it is not known yet.
  if (server.length > 0 && !isGiven('cluster-init')) return undefined
  const name = (clusterInit ? ofOthersEtcd : ofMembers).find(isGiven)
  if (name === undefined) return undefined
  const reason = clusterInit
    ? `the servers have an etcd of their own (${describe('cluster-init')})`
    : 'the etcd is one that others run, where this is set; with cluster-init the servers have one of their own'
  return { name, reason }
}

/** embed.Config.Validate has the same limits. */
function etcdTimes(config: Config, describe: Describe): Conflict | undefined {
  const { etcdHeartbeatInterval = 0, etcdElectionTimeout = 0 } = config
  const name = 'etcd-election-timeout'
  if (etcdElectionTimeout > longestElectionMs)
    return { name, reason: `etcd takes no more than ${longestElectionMs / 1000}s` }
  if (config.serverMode === 'ha' && etcdHeartbeatInterval === 0)
    return { name: 'etcd-heartbeat-interval', reason: 'it has to be more than 0' }
  return etcdElectionTimeout < heartbeatsPerElection * etcdHeartbeatInterval
    ? {
        name,
        reason: `it has to be ${heartbeatsPerElection} times ${describe('etcd-heartbeat-interval')}, or more`,
      }
    : undefined
}

const longestElectionMs = 50_000
const heartbeatsPerElection = 5

function etcdFiles({ etcdCertFile, etcdKeyFile }: Config): Conflict | undefined {
  return halfPair(['etcd-cert-file', etcdCertFile], ['etcd-key-file', etcdKeyFile])
}

type NamedFile = readonly [name: SettingName, path: string | undefined]

/** A certificate is nothing without its key, nor the key without it. */
function halfPair(certificate: NamedFile, key: NamedFile): Conflict | undefined {
  const [given, missing] = certificate[1] === undefined ? [key, certificate] : [certificate, key]
  if (given[1] === undefined || missing[1] !== undefined) return undefined
  return { name: given[0], reason: `it needs ${missing[0]} beside it` }
}

function etcdSchemes({ etcdEndpoints = [], etcdCaFile, etcdCertFile }: Config): Conflict | undefined {
  const plain = etcdEndpoints.find((url) => url.startsWith('http:'))
  const isMixed = etcdEndpoints.some((url) => url.startsWith('https:'))
  if (plain !== undefined && isMixed)
    return { name: 'etcd-endpoints', reason: `all have to be https:// or none, and ${plain} is not` }
  if (plain !== undefined && (etcdCaFile ?? etcdCertFile) !== undefined) {
    const name = etcdCaFile === undefined ? 'etcd-cert-file' : 'etcd-ca-file'
    return { name, reason: `there is no TLS with ${plain}; say https://, or leave the files away` }
  }
  const repeated = firstRepeated(etcdEndpoints)
  return repeated === undefined
    ? undefined
    : { name: 'etcd-endpoints', reason: `${repeated} is there more than once` }
}

function tlsFiles({ certFile, keyFile, trustedCaFile }: DatastoreConfig): Conflict | undefined {
  const half = halfPair(['cert-file', certFile], ['key-file', keyFile])
  if (half !== undefined) return half
  return trustedCaFile !== undefined && certFile === undefined
    ? { name: 'trusted-ca-file', reason: 'it needs cert-file and key-file beside it' }
    : undefined
}

function tlsOnSockets(
  { listenAddress, certFile }: DatastoreConfig,
  describe: Describe,
): Conflict | undefined {
  if (certFile === undefined || !('unixPath' in listenAddress)) return undefined
  return {
    name: 'cert-file',
    reason: `${describe('listen-address')} is a Unix socket, which has no TLS; leave the files away, or listen on HOST:PORT`,
  }
}

function clientCertAuth({ clientCertAuth: isAsked, trustedCaFile }: DatastoreConfig): Conflict | undefined {
  if (!isAsked || trustedCaFile !== undefined) return undefined
  return { name: 'client-cert-auth', reason: 'it needs trusted-ca-file beside it' }
}

/** Whoever can write the datastore has the cluster. */
function openToOthers({ listenAddress, trustedCaFile, insecure }: DatastoreConfig): Conflict | undefined {
  if (insecure || trustedCaFile !== undefined) return undefined
  if ('unixPath' in listenAddress || isOwn(listenAddress.host)) return undefined
  return {
    name: 'listen-address',
    reason:
      'other machines can reach it; give cert-file, key-file and trusted-ca-file, so that clients need a certificate, or insecure to serve everybody',
  }
}

function accessByFlags({ kubeletArg }: KubeletConfig): Conflict | undefined {
  const reason = refusedAccessFlag(kubeletArg)
  return reason === undefined ? undefined : { name: 'kubelet-arg', reason }
}

function runtime(config: KubeletConfig, describe: Describe): Conflict | undefined {
  if (config.containerRuntime !== 'docker' || config.containerRuntimeEndpoint === undefined) return undefined
  return {
    name: 'container-runtime-endpoint',
    reason: `${describe('container-runtime')} has a socket of its own; leave one of them away`,
  }
}

/** Who asks for them is not asked who he is. */
function ownMetrics(config: Config | AgentConfig | KubeletConfig): Conflict | undefined {
  const { metricsAddress } = config
  if (metricsAddress === undefined) return undefined
  const name = 'metrics-address'
  const { host, port, isTls } = metricsAddress
  if (isTls) return { name, reason: 'a server or agent serves its metrics without TLS; leave https:// away' }
  if (!isOwn(host))
    return {
      name,
      reason: 'other machines could reach it; name an address of loopback, such as 127.0.0.1:9101',
    }
  const taken =
    config.role !== 'server'
      ? portsOfRole(config.role)
      : [
          ...portsOfRole(config.serverMode, config),
          { number: config.httpsListenPort, holder: 'kube-apiserver' },
        ]
  const holder = taken.find(({ number }) => number === port)?.holder
  return holder === undefined ? undefined : { name, reason: `${holder} has that port` }
}

function metricsOpenToOthers(config: DatastoreConfig): Conflict | undefined {
  const { metricsAddress, certFile, trustedCaFile, insecure } = config
  if (metricsAddress === undefined) return undefined
  const { host, isTls } = metricsAddress
  if (isTls && certFile === undefined) {
    return { name: 'metrics-address', reason: 'https:// needs cert-file and key-file beside it' }
  }
  if (insecure || isOwn(host) || (isTls && trustedCaFile !== undefined)) return undefined
  return {
    name: 'metrics-address',
    reason:
      'other machines can reach it; give https:// with cert-file, key-file and trusted-ca-file, so that clients need a certificate, or insecure to serve everybody',
  }
}

function advertisedScheme({ advertiseClientUrls, certFile }: DatastoreConfig): Conflict | undefined {
  const isTls = certFile !== undefined
  const wrong = advertiseClientUrls.find((url) => url.startsWith('https:') !== isTls)
  if (wrong === undefined) return undefined
  const reason = isTls ? 'clients have to use TLS here' : 'there is no TLS without cert-file and key-file'
  return { name: 'advertise-client-urls', reason: `${wrong} does not work: ${reason}` }
}

/** An address of loopback. A name may mean anything, but for this one. */
function isOwn(host: string): boolean {
  const parsed = parseAddress(host)
  return parsed === undefined ? host === 'localhost' : isLoopback(parsed)
}

/** The tenth address of a range of services, which its limits guarantee. */
export function tenthAddress(serviceCidr: string): Address {
  return known(addressAt(rangeOf(serviceCidr), 10), serviceCidr)
}

function rangeOf(text: string): Range {
  return known(parseRange(text), text)
}

function addressOf(text: string): Address {
  return known(parseAddress(text), text)
}

function known<Value>(value: Value | undefined, text: string): Value {
  if (value === undefined) throw new Error(`bug: ${text} was taken for valid`)
  return value
}

function isInside(path: string, directory: string): boolean {
  const way = relative(directory, path)
  return way === '' || (!way.startsWith('..') && !isAbsolute(way))
}

function firstRepeated(names: readonly string[]): string | undefined {
  return names.find((name, index) => names.indexOf(name) !== index)
}
