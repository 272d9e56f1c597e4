import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../base/logger.ts'
import type { Notifier } from '../base/notify.ts'
import type { Component } from '../components/component.ts'
import type { Paths } from '../config/paths.ts'
import type { Board } from './condition.ts'

/** How often it is looked at whether the condition of the cluster has changed. */
const conditionIntervalMs = 1_000

/** What somebody at a terminal reads: each part once, and how to use the cluster. */
export function startReport({
  announce,
  log,
  paths,
  command,
  isServer,
}: {
  /** What starts this program at a shell. */
  command: string
  announce: (line: string) => void
  log: Logger
  paths: Paths
  /** Elsewhere there is no access to the cluster. */
  isServer: boolean
}) {
  const begun = performance.now()
  const named = new Set<string>()
  let isUseTold = false
  const tellUse = (first: string) => {
    if (isUseTold) return
    isUseTold = true
    announce('')
    if (!isServer) return announce(first)
    announce(`${first} To use it from another terminal:`)
    // Without its data directory a command would unpack a payload in the usual one, and look for the daemon there.
    announce(`    export K8S_DATA_DIR=${paths.dataDir} KUBECONFIG=${paths.adminKubeconfig}`)
    announce(`    ${command} kubectl get nodes`)
  }
  return {
    ready(name: string) {
      if (named.has(name)) return
      named.add(name)
      const tookMs = Math.round(performance.now() - begun)
      log.info({ component: name, tookMs }, 'component ready')
      announce(`${name.padEnd(24)} ready after ${(tookMs / 1000).toFixed(2)} s`)
    },
    degraded(name: string, reason: string) {
      announce(`${name.padEnd(24)} not ready: ${reason}`)
      tellUse(isServer ? 'The cluster serves without it.' : 'The node goes on without it.')
    },
    all: () => tellUse(isServer ? 'The cluster is ready.' : 'The node is ready.'),
  }
}

/** Tells the service manager, the log and whoever waits at a terminal how the cluster is whenever that changes. */
export async function tellCondition({
  components,
  board,
  notify,
  log,
  report,
  signal,
}: {
  components: readonly Component[]
  board: Board
  notify: Notifier
  log: Logger
  report: ReturnType<typeof startReport>
  signal: AbortSignal
}): Promise<void> {
  let told = ''
  for (;;) {
    const { state, problems } = board.condition(components)
    for (const part of board.parts()) if (part.state === 'ready') report.ready(part.name)
    const text = problems.length === 0 ? state : `${state}: ${problems.join('; ')}`
    if (text !== told) {
      notify.status(text)
      log.info({ state, ...(problems.length > 0 && { problems }) }, 'condition of the cluster')
      if (state === 'ready') report.all()
    }
    told = text
    await sleep(conditionIntervalMs, undefined, { signal, ref: false })
  }
}
