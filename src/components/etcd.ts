import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { isIPv6 } from 'node:net'
import { join } from 'node:path'
import { AppError } from '../base/errors.ts'
import { preparePrivateDirectory } from '../base/files.ts'
import { etcdClientUrl, ports } from '../config/ports.ts'
import { etcdPeerName } from '../pki/etcd.ts'
import { flags } from './arguments.ts'
import type { ComponentContext } from './component.ts'
import { probeHttp } from './probe.ts'
import type { ProcessRecipe } from './process-component.ts'

const metricsUrl = `http://127.0.0.1:${ports.etcdMetrics.number}`

/**
 * kube-apiserver's caches of what rarely changes learn from a notification how far they are, and must hear of it more often
 * than the API server compacts, every five minutes; etcd's own default is ten.
 */
const progressNotifyInterval = '60s'

/** bbolt takes no more than that in practice; it stands for no limit, since 0 is etcd's default of 2 GiB. */
const noQuotaBytes = 2 ** 50

type EtcdContext = Pick<ComponentContext, 'config' | 'addresses' | 'paths' | 'pki' | 'credentials'>

/** Of a member that joins others: how it is let in. */
export interface MemberEnrolment {
  readonly isUnderWay: boolean
  /** Resolves when it may be started; may be called again. */
  begin(): Promise<void>
  readonly initialCluster: string | undefined
}

/** This server's member of the servers' own etcd. One that fails is tried again for ever: others may serve meanwhile. */
export function etcd(context: EtcdContext, enrolment?: MemberEnrolment): ProcessRecipe {
  const { paths, credentials } = context
  return {
    name: 'etcd',
    needs: [],
    provides: ['member'],
    policy: 'degraded',
    args: () => etcdArguments(context, enrolment?.initialCluster),
    // Its JSON is read with klog's text.
    logFormat: 'klog',
    readyTimeoutMs: 60_000,
    // It hands the lead over before it goes.
    stopTimeoutMs: 15_000,
    ports: [ports.etcd.number, ports.etcdPeers.number, ports.etcdMetrics.number],
    prepare: async () => {
      await credentials
      if (enrolment?.isUnderWay) await enrolment.begin()
      else requireData(paths)
      await preparePrivateDirectory(paths.memberDir)
    },
    // What it has by itself: without a majority of the others no restart would help.
    alive: async (signal) => void (await probeHttp({ url: `${metricsUrl}/livez`, signal })),
    probe: async (signal) => void (await probeHttp({ url: `${metricsUrl}/readyz`, signal })),
    hangLimitMs: 30_000,
  }
}

/** Of a cluster that has served, an empty directory is no new one: a disk is not mounted, or data are lost. */
function requireData({ clusterFacts, memberDir }: EtcdContext['paths']): void {
  if (!existsSync(clusterFacts) || existsSync(join(memberDir, 'member'))) return
  throw new AppError(`cannot find the data of etcd in ${memberDir}, and a new one would be empty`, {
    code: 'ETCD_DATA_MISSING',
    path: memberDir,
    remedy: 'mount its disk, or put the directory back from a backup',
  })
}

/** At which the members of the others reach a server's. */
export function etcdPeerUrl(nodeIp: string): string {
  return memberUrl(nodeIp, ports.etcdPeers.number)
}

function memberUrl(nodeIp: string, port: number): string {
  return `https://${isIPv6(nodeIp) ? `[${nodeIp}]` : nodeIp}:${port}`
}

/** The flags of etcd (server/etcdmain/config.go). */
export function etcdArguments(
  { config, addresses, paths, pki }: Omit<EtcdContext, 'credentials'>,
  /** Of those that it joins. */
  initialCluster?: string,
): string[] {
  const { nodeIp } = addresses()
  const peerUrl = etcdPeerUrl(nodeIp)
  // The other servers come here, each with a certificate of etcd's own authority.
  const clientUrl = memberUrl(nodeIp, ports.etcd.number)
  const { authority, leaves } = pki.etcd
  const { quotaBackendBytes, etcdHeartbeatInterval, etcdElectionTimeout } = config
  return flags(
    {
      name: config.nodeName,
      'data-dir': paths.memberDir,
      'listen-client-urls': `${etcdClientUrl},${clientUrl}`,
      'advertise-client-urls': clientUrl,
      'listen-peer-urls': peerUrl,
      'initial-advertise-peer-urls': peerUrl,
      'listen-metrics-urls': metricsUrl,
      // Only a member without data looks at these three.
      'initial-cluster': initialCluster ?? `${config.nodeName}=${peerUrl}`,
      'initial-cluster-state': initialCluster === undefined ? 'new' : 'existing',
      'initial-cluster-token': clusterToken(authority.certFile),
      'cert-file': leaves.server.certFile,
      'key-file': leaves.server.keyFile,
      'trusted-ca-file': authority.certFile,
      'client-cert-auth': true,
      'peer-cert-file': leaves.peer.certFile,
      'peer-key-file': leaves.peer.keyFile,
      'peer-trusted-ca-file': authority.certFile,
      'peer-client-cert-auth': true,
      'peer-cert-allowed-cn': etcdPeerName,
      'enable-grpc-gateway': false,
      // kube-apiserver compacts.
      'auto-compaction-retention': '0',
      'quota-backend-bytes': quotaBackendBytes === 0 ? noQuotaBytes : quotaBackendBytes,
      'heartbeat-interval': etcdHeartbeatInterval,
      'election-timeout': etcdElectionTimeout,
      'watch-progress-notify-interval': progressNotifyInterval,
      'feature-gates': 'InitialCorruptCheck=true',
      'log-level': config.v < 2 ? 'warn' : 'info',
      'log-outputs': 'stderr',
    },
    config.etcdArg,
  )
}

/** Two clusters of one machine's address must never take each other's members for their own. */
function clusterToken(authorityFile: string): string {
  return `k8s-${createHash('sha256').update(readFileSync(authorityFile)).digest('hex').slice(0, 16)}`
}
