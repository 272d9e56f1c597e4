import type { Pod } from '../../cluster/kubelet/rejections.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions } from '../daemon.ts'
import { outputOption } from '../output.ts'
import { renderSince } from '../since.ts'
import { renderTable } from '../table.ts'
import { listPods, ownKubelet } from './kubelet.ts'

const ownOptions = { output: outputOption }

export const podList: Command = {
  name: 'pod ls',
  description: 'List the pods of the kubelet alone on this machine.',
  details: 'Asks the kubelet, so it shows what became pods; k8s status has the files that did not, and why.',
  examples: [
    { command: 'k8s pod ls', description: 'Their states, addresses and ages' },
    { command: 'k8s pod ls -o json', description: 'All that the kubelet says of them' },
  ],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { output } = optionValues(ownOptions, invocation.flags)
  const pods = await listPods(await ownKubelet(invocation))
  invocation.print(output === 'json' ? `${JSON.stringify(pods, null, 2)}\n` : renderPods(pods, Date.now()))
  return 0
}

export function renderPods(pods: readonly Pod[], nowMs: number): string {
  const rows = pods.map(({ metadata, spec, status }) => {
    const containers = status?.containerStatuses ?? []
    const ready = containers.filter((container) => container.ready === true).length
    const restarts = containers.reduce((sum, { restartCount = 0 }) => sum + restartCount, 0)
    return [
      metadata?.namespace ?? '',
      metadata?.name ?? '',
      stateOf(status),
      `${ready}/${spec?.containers?.length ?? 0}`,
      String(restarts),
      status?.podIP ?? '-',
      status?.startTime === undefined ? '-' : renderSince(status.startTime, nowMs),
    ]
  })
  return renderTable(['NAMESPACE', 'NAME', 'STATE', 'READY', 'RESTARTS', 'IP', 'AGE'], rows)
}

/** As kubectl's: a phase of Running says little of a container that waits, or has ended. */
function stateOf(status: Pod['status']): string {
  const states = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])]
  const waiting = states.flatMap(({ state }) => state?.waiting?.reason ?? [])
  const ended = (status?.containerStatuses ?? []).flatMap(({ state }) => state?.terminated?.reason ?? [])
  return status?.reason ?? waiting[0] ?? ended[0] ?? status?.phase ?? 'Pending'
}
