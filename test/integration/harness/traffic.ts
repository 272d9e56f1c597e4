import { text } from 'node:stream/consumers'
import type { Traffic } from './api-traffic.ts'
import type { Cluster } from './cluster.ts'
import { repository } from './machine.ts'

/** Starts a client that writes, watches and reads all the time (api-traffic.ts), and tells at its stop what it has seen. */
export function startTraffic(cluster: Cluster) {
  const program = `${repository}/test/integration/harness/api-traffic.ts`
  const running = cluster.machine.spawn([process.execPath, program, '/var/lib/k8s/admin.kubeconfig'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  const { stdin, stdout } = running.child
  if (stdin === null || stdout === null) throw new Error('bug: the client has no pipes')
  const begun = Promise.withResolvers<void>()
  stdout.once('readable', begun.resolve)
  return {
    writing: begun.promise,
    async stop(): Promise<Traffic> {
      stdin.end()
      const lines = (await text(stdout)).trim().split('\n')
      return JSON.parse(lines.at(-1) ?? '') as Traffic
    },
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  }
}
