import { AppError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Paths } from '../config/paths.ts'
import type { Payload } from '../payload/payload.ts'
import { runCommand } from '../supervisor/spawn.ts'

/** Kubernetes' own default (PodSpec.terminationGracePeriodSeconds). */
const defaultGraceSeconds = 30
/** No pod holds the stop of the daemon up for longer, whatever its grace period. */
const longestGraceSeconds = 120
const commandMarginMs = 10_000

/** As `crictl ps -o json` prints it; the kubelet sets the annotation (pkg/kubelet/kuberuntime/labels.go). */
interface ContainerList {
  readonly containers: readonly {
    readonly id: string
    readonly annotations?: Readonly<Record<string, string>>
  }[]
}

interface StopPodsOptions {
  readonly payload: Payload
  readonly paths: Paths
  readonly log: Logger
  /** Aborted: what runs by then is left. */
  readonly signal: AbortSignal
}

/**
 * Ends all pods through the CRI while no kubelet runs that would start them again: first each
 * container with SIGTERM and its pod's grace period, all at once, then the sandboxes with their networks. preStop
 * hooks are the kubelet's and do not run.
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
  const sandboxes = (await crictl(options, ['pods', '--state=Ready', '--quiet'], commandMarginMs))
    .split('\n')
    .filter(Boolean)
  if (sandboxes.length > 0) await crictl(options, ['stopp', ...sandboxes], longestGraceSeconds * 1000)
  log.info({ containers: containers.length, pods: sandboxes.length }, 'ended the pods')
}

function graceOf(annotations: Readonly<Record<string, string>> | undefined): number {
  const seconds = Number(annotations?.['io.kubernetes.pod.terminationGracePeriod'] ?? defaultGraceSeconds)
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), longestGraceSeconds) : defaultGraceSeconds
}

async function crictl(
  { payload, paths, signal }: { payload: Payload; paths: Paths; signal: AbortSignal },
  args: readonly string[],
  timeoutMs: number,
): Promise<string> {
  const { stdout } = await runCommand({
    command: payload.bin('crictl'),
    args: [
      `--runtime-endpoint=unix://${paths.containerdSocket}`,
      `--timeout=${Math.ceil(timeoutMs / 1000)}s`,
      ...args,
    ],
    env: { PATH: payload.binDir },
    timeoutMs,
    signal,
  })
  return stdout
}
