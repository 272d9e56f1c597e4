/*
 *            init          start          probe answers
 *    new ---------> init ---------> start ---------> ready
 *                                     ^                |
 *                                     |  the process   |
 *                                     +---- ended -----+        stop: from every state, once or often
 */
import type { ProcessStatus } from '../supervisor/supervised-process.ts'

/** What the supervisor starts, asks and stops. The order between components is cluster/plan.ts' alone. */
export interface Component {
  readonly name: ComponentName
  /** The components that must be ready before this one starts. */
  readonly needs: readonly ComponentName[]
  /** How long `ready` may take before the start of the cluster is given up, ms. */
  readonly readyTimeoutMs: number
  /** How long `stop` lets it end by itself before it is killed, ms. */
  readonly stopTimeoutMs: number
  /** Prepares files; may fail; may be called again. */
  init(): Promise<void>
  /** Returns when the process (or worker) runs. */
  start(signal: AbortSignal): Promise<void>
  /** Returns when it does what its user would ask of it. */
  ready(signal: AbortSignal): Promise<void>
  /** Legal in every state and repeatable; returns when nothing of it runs any more. An aborted signal hurries it. */
  stop(signal: AbortSignal): Promise<void>
  status(): ProcessStatus
}

/** In the order of their start; the stop goes through it backwards. */
export const componentNames = [
  'datastore',
  'containerd',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'kubelet',
  'kube-proxy',
] as const
export type ComponentName = (typeof componentNames)[number]
