import { once } from 'node:events'
import type { MachineTaskContext, Task } from './task.ts'

/** Serves what the daemon counts (docs/network-policy.md), where a setting says so; what nobody asked for is not loaded. */
export const metrics: Task<MachineTaskContext> = {
  name: 'metrics',
  purpose: 'serve metrics',
  leaderOnly: false,
  async run({ board, config, log }, signal) {
    if (config.metricsAddress === undefined) return
    const { nodeMetrics } = await import('../node-metrics.ts')
    const server = nodeMetrics({ board, log })
    const url = await server.listen(config.metricsAddress)
    log.info({ url: `${url}/metrics` }, 'serving metrics')
    if (!signal.aborted) await once(signal, 'abort')
    server.stop()
  },
}
