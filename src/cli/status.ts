import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError, errorCode } from '../base/errors.ts'
import { boolean, duration } from '../config/table/kinds.ts'
import type { ControlClient } from '../control/client.ts'
import type { DaemonStatus, PayloadStatus } from '../control/messages.ts'
import { type Command, type Invocation, optionValues } from './command.ts'
import { controlSocketOf, daemonOptions } from './daemon.ts'
import { outputOption } from './output.ts'
import { renderSince } from './since.ts'
import { renderTable } from './table.ts'

const pollIntervalMs = 250

/** The cluster serves, and something of it is not as it should be. */
const degradedExitCode = 3

const ownOptions = {
  output: outputOption,
  wait: {
    group: 'Waiting',
    description: 'Return when everything is ready: components, the Node, and DNS unless it is disabled.',
    kind: boolean,
    default: false,
  },
  timeout: {
    group: 'Waiting',
    description: 'How long to wait before it fails.',
    kind: duration,
    default: 300_000,
    defaultText: '5m',
  },
}

export const status: Command = {
  name: 'status',
  description: 'Show each component: its state, process and restarts, and what it uses.',
  details: `MEMORY is the proportional set size; CPU is that of the last minute, in thousandths of a core.
The datastore runs in the daemon: its row is the daemon's process. The pods of add-ons on this machine are told apart, in the table of parts.

Exits with 0 when all is well or on its way, with 3 when the cluster serves but something is not as it should be,
and with 1 when the daemon does not run or --wait did not see it ready in time.`,
  examples: [
    { command: 'k8s status', description: 'Show the components' },
    { command: 'k8s status --wait --timeout=2m', description: 'Wait until all is ready' },
    { command: 'k8s status -o json', description: 'The same for a program' },
  ],
  options: { ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { output, wait, timeout } = optionValues(ownOptions, invocation.flags)
  const socket = await controlSocketOf(invocation)
  const { connectControl } = await import('../control/client.ts')
  const client = connectControl(socket)
  const current = wait ? await readyStatus({ client, timeoutMs: timeout }) : await client.status()
  const json = () => `${JSON.stringify(current, null, 2)}\n`
  invocation.print(output === 'json' ? json() : renderStatus(current, Date.now()))
  return current.state === 'degraded' ? degradedExitCode : 0
}

/** Waits for the daemon, too: whoever has just started it need not know when its socket is there. */
async function readyStatus(options: { client: ControlClient; timeoutMs: number }): Promise<DaemonStatus> {
  const { client, timeoutMs } = options
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const answer = await client.status().catch((error: unknown) => {
      if (['DAEMON_NOT_RUNNING', 'DAEMON_SILENT'].includes(errorCode(error) ?? '')) return error as Error
      throw error
    })
    const state = answer instanceof Error ? 'starting' : answer.state
    const isLate = performance.now() >= deadline
    if (!(answer instanceof Error) && (state === 'ready' || (isLate && state === 'degraded'))) return answer
    if (isLate) throw notReady(answer, timeoutMs)
    await sleep(pollIntervalMs)
  }
}

function notReady(answer: DaemonStatus | Error, timeoutMs: number): AppError {
  const waiting =
    answer instanceof Error
      ? describeError(answer)
      : answer.components
          .filter(({ state }) => state !== 'ready')
          .map(({ name, state }) => `${name} is ${state}`)
          .join(', ') ||
        answer.parts
          .filter(({ state }) => state !== 'ready')
          .map(({ name, message }) => `${name}: ${message ?? 'not ready'}`)
          .join(', ')
  return new AppError(`cannot see a ready cluster after ${timeoutMs / 1000} s: ${waiting}`, {
    code: 'NODE_NOT_READY',
    remedy: 'the logs of the daemon say more (journalctl -u k8s)',
  })
}

function renderStatus(current: DaemonStatus, nowMs: number): string {
  const rows = current.components.map((component) => {
    const { memoryBytes, cpuMillicores } = component
    return [
      component.name,
      component.state,
      String(component.pid ?? '-'),
      String(component.restarts),
      renderSince(component.since, nowMs),
      memoryBytes === null ? '-' : mebibytes(memoryBytes),
      cpuMillicores === null ? '-' : `${cpuMillicores}m`,
    ]
  })
  const failures = current.components.flatMap(({ name, lastFailure }) =>
    lastFailure === undefined
      ? []
      : [`\n${name} failed ${renderSince(lastFailure.at, nowMs)} ago: ${lastFailure.message}\n`],
  )
  const reasons = current.components.flatMap(({ name, state, reason }) =>
    reason === undefined || current.problems.some((problem) => problem.includes(reason))
      ? []
      : [`\n${name} is ${state}: ${reason}\n`],
  )
  const parts = current.parts.map(({ name, state, memoryBytes, message }) => [
    ...[name, state, memoryBytes === undefined ? '-' : mebibytes(memoryBytes), message ?? ''],
  ])
  const partsTable = parts.length === 0 ? '' : `\n${renderTable(['PART', 'STATE', 'MEMORY', ''], parts)}`
  const payloads = renderPayloads(current.payloads)
  const node = `\n${summaryOf(current)}\n`
  const problems = current.problems.map((problem) => `  ${problem}\n`)
  const table = renderTable(['NAME', 'STATE', 'PID', 'RESTARTS', 'SINCE', 'MEMORY', 'CPU'], rows)
  return [table, partsTable, ...reasons, ...failures, node, ...problems, payloads].join('')
}

/** Nothing, where no other version is on the disk. */
function renderPayloads(payloads: readonly PayloadStatus[]): string {
  const others = payloads.filter(({ use }) => use !== 'running')
  if (others.length === 0) return ''
  const rows = others.map(({ version, use, sizeBytes, dir, artifact }) => [
    version,
    use,
    mebibytes(sizeBytes),
    artifact ?? dir,
  ])
  return `\n${renderTable(['OTHER VERSION', 'STATE', 'DISK', 'PLACE'], rows)}`
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(0)}Mi`
}

const subjects: Readonly<Record<DaemonStatus['role'], string>> = {
  server: 'the cluster',
  agent: 'the agent',
  kubelet: 'the kubelet',
  datastore: 'the datastore',
}

function summaryOf({ role, nodeName, nodeReady, state }: DaemonStatus): string {
  if (nodeName === undefined) return `The datastore is ${state}.`
  return `Node ${nodeName} is ${nodeReady === true ? 'Ready' : 'not Ready'}; ${subjects[role]} is ${state}.`
}
