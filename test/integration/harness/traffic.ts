import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import type { History } from '../../soak/history.ts'
import type { Cluster } from './cluster.ts'
import { repository } from './machine.ts'

const program = `${repository}/test/soak/client.ts`

/** Clients that write, watch and read all the time (test/soak/client.ts). */
export interface Traffic extends AsyncDisposable {
  readonly writing: Promise<void>
  /** Tells what they did and saw. */
  stop(): Promise<History>
}

/** In the machine of a cluster, of its API server alone. */
export function startTraffic(cluster: Cluster): Traffic {
  const command = [process.execPath, program, '/var/lib/k8s/admin.kubeconfig', 'https://127.0.0.1:6443']
  const running = cluster.machine.spawn(command, { stdio: ['pipe', 'pipe', 'ignore'] })
  return trafficOf(running.child, () => running[Symbol.asyncDispose]())
}

/** On a network of machines, of all of these API servers. */
export function startTrafficOn(
  { networkPid }: { networkPid: number },
  { kubeconfig, urls }: { kubeconfig: string; urls: readonly string[] },
): Traffic {
  const inside = ['--target', String(networkPid), '--net', '--', process.execPath, program]
  const child = spawn('nsenter', [...inside, kubeconfig, ...urls], { stdio: ['pipe', 'pipe', 'inherit'] })
  return trafficOf(child, async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  })
}

function trafficOf({ stdin, stdout }: ChildProcess, end: () => Promise<void>): Traffic {
  if (stdin === null || stdout === null) throw new Error('bug: the client has no pipes')
  const begun = Promise.withResolvers<void>()
  stdout.once('readable', begun.resolve)
  return {
    writing: begun.promise,
    async stop() {
      stdin.end()
      const [, history] = (await text(stdout)).split('\n')
      if (history === undefined || history === '') throw new Error('the clients got no answers in the end')
      return JSON.parse(history) as History
    },
    [Symbol.asyncDispose]: end,
  }
}
