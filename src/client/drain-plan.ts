import type { V1Pod } from '@kubernetes/client-node'

/** The flags of `kubectl drain`, as far as they decide about pods. */
export interface PodRules {
  readonly ignoreDaemonsets: boolean
  readonly deleteEmptydirData: boolean
  readonly force: boolean
}

export interface DrainPlan {
  readonly evicted: readonly V1Pod[]
  /** Those that stay, with why, a line each. */
  readonly left: readonly string[]
  /** Why nothing may be evicted, a part of a sentence each. */
  readonly refusals: readonly string[]
}

/** Of one kind, in one message. */
const namesLimit = 5

/**
 * Which pods go, as `kubectl drain` has it (k8s.io/kubectl/pkg/drain/filters.go). `daemonSets`: NAMESPACE/NAME of those that there are.
 * Pure.
 */
export function planDrain(
  pods: readonly V1Pod[],
  { daemonSets, ...rules }: PodRules & { daemonSets: ReadonlySet<string> },
): DrainPlan {
  const evicted: V1Pod[] = []
  const left: string[] = []
  const refused = new Map<string, string[]>()
  const refuse = (reason: string, pod: V1Pod) =>
    refused.set(reason, [...(refused.get(reason) ?? []), podName(pod)])
  for (const pod of pods) {
    const owner = pod.metadata?.ownerReferences?.find(({ controller }) => controller)
    const isFinished = ['Succeeded', 'Failed'].includes(pod.status?.phase ?? '')
    if (pod.metadata?.annotations?.['kubernetes.io/config.mirror'] !== undefined) {
      left.push(`${podName(pod)} stays: it is a static pod, which the machine's own files keep`)
      continue
    }
    if (owner?.kind === 'DaemonSet' && !isFinished) {
      const isThere = daemonSets.has(`${pod.metadata?.namespace}/${owner.name}`)
      if (isThere && rules.ignoreDaemonsets) {
        left.push(`${podName(pod)} stays: its DaemonSet would bring it back at once`)
        continue
      }
      if (isThere) refuse('of a DaemonSet, which would bring it back: --ignore-daemonsets leaves it', pod)
      else if (!rules.force) refuse('of a DaemonSet that is gone: --force gives it up', pod)
    }
    if (owner === undefined && !isFinished && !rules.force)
      refuse('of no controller, which would bring it back elsewhere: --force gives it up', pod)
    const hasEmptyDir = pod.spec?.volumes?.some(({ emptyDir }) => emptyDir !== undefined) === true
    if (hasEmptyDir && !isFinished && !rules.deleteEmptydirData)
      refuse('with an emptyDir, whose data are lost: --delete-emptydir-data gives them up', pod)
    evicted.push(pod)
  }
  return { evicted, left, refusals: [...refused].map(([reason, names]) => `${listed(names)} (${reason})`) }
}

export function podName({ metadata }: V1Pod): string {
  return `${metadata?.namespace}/${metadata?.name}`
}

export function listed(names: readonly string[]): string {
  const more = names.length - namesLimit
  return names.slice(0, namesLimit).join(', ') + (more > 0 ? ` and ${more} more` : '')
}
