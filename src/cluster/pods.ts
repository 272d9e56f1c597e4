import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import { HostFiles } from '../node/facts/host-files.ts'
import { runFileStep } from '../node/reset/file-steps.ts'
import { readPodProcesses } from '../node/reset/pod-processes.ts'
import type { Payload } from '../payload/payload.ts'
import { runCommand } from '../supervisor/spawn.ts'

/** Kubernetes' own default (PodSpec.terminationGracePeriodSeconds). */
const defaultGraceSeconds = 30
/** No pod holds the stop of the daemon up for longer, whatever its grace period. */
const longestGraceSeconds = 120
const commandMarginMs = 10_000
/** containerd deletes the task of a sandbox, and with it the shim, a moment after it has answered. */
const shimLimitMs = 2_000
const shimIntervalMs = 20

/** As `crictl ps -o json` prints it; the kubelet sets the annotation (pkg/kubelet/kuberuntime/labels.go). */
interface ContainerList {
  readonly containers: readonly {
    readonly id: string
    readonly annotations?: Readonly<Record<string, string>>
  }[]
}

interface StopPodsOptions {
  readonly payload: Payload
  /** Of the CRI. */
  readonly runtimeSocket: string
  /** Of one that others run, too, what else it has is theirs: it is trusted to end what it is told to. */
  readonly isOwnRuntime: boolean
  readonly log: Logger
  /** Aborted: what runs by then is left. */
  readonly signal: AbortSignal
}

/**
 * Ends all pods through the CRI while no kubelet runs that would start them again: first each
 * container with SIGTERM and its pod's grace period, all at once, then the sandboxes with their networks. preStop
 * hooks are the kubelet's and do not run. Returns when no shim is left: without containerd none of them ends.
 */
export async function stopPods(options: StopPodsOptions): Promise<void> {
  try {
    await endPods(options)
  } catch (error) {
    if (!options.signal.aborted) throw error
    throw new AppError('cannot end the pods: the stop was hurried, and they run on', {
      code: 'PODS_REMAIN',
      remedy: 'to end them, start k8s again and run `k8s stop --pods` once; `k8s reset` ends them, too',
    })
  }
}

/** Ends them, and leaves nothing of them in a runtime that others run on. */
export async function removePods(options: StopPodsOptions): Promise<void> {
  await stopPods(options)
  await crictl(options, ['rmp', '--all', '--force'], longestGraceSeconds * 1000)
}

async function endPods(options: StopPodsOptions): Promise<void> {
  const { log } = options
  const { containers } = JSON.parse(
    await crictl(options, ['ps', '--quiet=false', '--output=json'], commandMarginMs),
  ) as ContainerList
  await Promise.allSettled(
    containers.map(({ id, annotations }) => {
      const graceSeconds = graceOf(annotations)
      return crictl(options, ['stop', `--timeout=${graceSeconds}`, id], graceSeconds * 1000 + commandMarginMs)
    }),
  )
  const pods = await stopSandboxes(options, ['--state=Ready'])
  if (!(await shimsEnd(options))) await endRest(options)
  log.info({ containers: containers.length, pods }, 'ended the pods')
}

/**
 * What the kubelet was about to start, or to end, when it was stopped itself: its sandbox is not ready, or none is known
 * by then.
 */
async function endRest(options: StopPodsOptions): Promise<void> {
  await stopSandboxes(options)
  if (await shimsEnd(options)) return
  for (const { pid, startTicks, command } of remaining(options)) {
    options.log.warn({ pid, process: command }, 'containerd does not end what is left of a pod: killed')
    await runFileStep({ kind: 'kill', description: `kill ${command} (${pid})`, pid, startTicks })
  }
}

/** Returns how many they were. */
async function stopSandboxes(options: StopPodsOptions, filter: readonly string[] = []): Promise<number> {
  const ids = (await crictl(options, ['pods', ...filter, '--quiet'], commandMarginMs))
    .split('\n')
    .filter(Boolean)
  if (ids.length > 0) await crictl(options, ['stopp', ...ids], longestGraceSeconds * 1000)
  return ids.length
}

async function shimsEnd(options: StopPodsOptions): Promise<boolean> {
  const endMs = performance.now() + shimLimitMs
  for (; remaining(options).length > 0; await sleep(shimIntervalMs, undefined, { signal: options.signal })) {
    if (performance.now() > endMs) return false
  }
  return true
}

function remaining({ runtimeSocket, isOwnRuntime }: StopPodsOptions) {
  return isOwnRuntime ? readPodProcesses(new HostFiles(), runtimeSocket) : []
}

function graceOf(annotations: Readonly<Record<string, string>> | undefined): number {
  const seconds = Number(annotations?.['io.kubernetes.pod.terminationGracePeriod'] ?? defaultGraceSeconds)
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), longestGraceSeconds) : defaultGraceSeconds
}

async function crictl(
  { payload, runtimeSocket, signal }: StopPodsOptions,
  args: readonly string[],
  timeoutMs: number,
): Promise<string> {
  const { stdout } = await runCommand({
    command: payload.bin('crictl'),
    args: [
      `--runtime-endpoint=unix://${runtimeSocket}`,
      `--timeout=${Math.ceil(timeoutMs / 1000)}s`,
      ...args,
    ],
    env: { PATH: payload.binDir },
    timeoutMs,
    signal,
  })
  return stdout
}
