import type { TlsIdentity } from '../base/https.ts'
import type { Component } from '../components/component.ts'
import { probeNode } from '../components/kubelet.ts'
import type { Config } from '../config/config.ts'
import type { DaemonStatus } from '../control/messages.ts'
import { apiserverUrl } from '../components/probe.ts'

const nodeProbeTimeoutMs = 2_000

export interface StatusOptions {
  readonly config: Config
  readonly version: string
  readonly startedAt: Date
  readonly components: readonly Component[]
  readonly kubeletIdentity: () => Promise<TlsIdentity>
}

/** What `k8s status` shows. The Node is asked for when somebody asks, never in between. */
export async function clusterStatus({
  config,
  version,
  startedAt,
  components,
  kubeletIdentity,
}: StatusOptions): Promise<DaemonStatus> {
  // The Node's condition outlives a daemon that was killed: it says Ready before the new one has started anything.
  // A daemon that has only begun has none yet.
  const isRunning =
    components.length > 0 && components.every((component) => component.status().state === 'ready')
  const nodeReady = isRunning && (await isNodeReady({ config, kubeletIdentity }))
  return {
    version,
    startedAt: startedAt.toISOString(),
    nodeName: config.nodeName,
    nodeReady,
    components: components.map((component) => ({ ...component.status(), needs: component.needs })),
  }
}

async function isNodeReady({
  config,
  kubeletIdentity,
}: Pick<StatusOptions, 'config' | 'kubeletIdentity'>): Promise<boolean> {
  try {
    const signal = AbortSignal.timeout(nodeProbeTimeoutMs)
    await probeNode({
      server: apiserverUrl(config),
      nodeName: config.nodeName,
      tls: await kubeletIdentity(),
      signal,
    })
    return true
  } catch {
    return false
  }
}
