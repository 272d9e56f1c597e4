/* What a kubelet says of the files that it makes no pods of (pkg/kubelet/config/file.go), and of pods that do not run. Pure. */
import { basename } from 'node:path'
import type { RecordListener } from '../../supervisor/logs.ts'

type LogRecord = Parameters<RecordListener>[0]

export interface Rejection {
  readonly path: string
  readonly reason: string
}

const reasonLimit = 500

const reasonsOfMessages: Readonly<Record<string, string | undefined>> = {
  'Could not get metadata': undefined,
  'Could not process manifest file': undefined,
  'Manifest path is not a directory or file': 'it is no plain file',
  'Provided manifest path is a directory, not recursing into manifest path': 'it is a directory',
}

/** undefined: the record is of something else. */
export function rejectionIn({ message, fields }: LogRecord): Rejection | undefined {
  const error = String(fields['err'] ?? '')
  if (message === 'Unable to process watch event') {
    const [, path = '', reason = ''] =
      /^can't process config file "((?:[^"\\]|\\.)*)": (.*)$/s.exec(error) ?? []
    return path === '' ? undefined : { path, reason: plainReason(reason) }
  }
  if (!Object.hasOwn(reasonsOfMessages, message)) return undefined
  return {
    path: String(fields['path'] ?? ''),
    reason: reasonsOfMessages[message] ?? plainReason(error),
  }
}

/** Upstream repeats the whole of what is no pod, with all that is secret in it. */
function plainReason(error: string): string {
  const reason = /^.*?: couldn't parse as pod\((.*)\), please check config file$/s.exec(error)?.[1] ?? error
  const missing =
    /^(?:couldn't get version\/kind; json parse error|Object '(Kind|apiVersion)' is missing in)/.exec(reason)
  if (missing !== null)
    return `it is no object of Kubernetes: it has no ${(missing[1] ?? 'kind').toLowerCase()}`
  const other = /^invalid pod: &(?:\w+\.)?(\w+)\{/.exec(reason)
  if (other !== null) return `it is a ${other[1]}, and no Pod`
  return reason.replaceAll('\n', ' ').slice(0, reasonLimit)
}

/** What is looked at of the answer to /pods. */
export interface PodList {
  readonly items?: readonly Pod[] | null
}

export interface Pod {
  readonly metadata?: {
    readonly name?: string
    readonly namespace?: string
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly spec?: {
    readonly nodeName?: string
    readonly containers?: readonly { readonly name?: string }[]
    readonly initContainers?: readonly { readonly name?: string }[]
  }
  readonly status?: {
    readonly phase?: string
    readonly reason?: string
    readonly message?: string
    readonly podIP?: string
    readonly startTime?: string
    readonly initContainerStatuses?: readonly ContainerStatus[]
    readonly containerStatuses?: readonly ContainerStatus[]
  }
}

interface ContainerStatus {
  readonly name?: string
  readonly ready?: boolean
  readonly restartCount?: number
  readonly state?: {
    readonly running?: object
    readonly waiting?: { readonly reason?: string; readonly message?: string }
    readonly terminated?: { readonly reason?: string; readonly exitCode?: number }
  }
}

/** Those that files of the directory have become. */
export function staticPods({ items }: PodList): Pod[] {
  return (items ?? []).filter(
    ({ metadata }) => metadata?.annotations?.['kubernetes.io/config.source'] === 'file',
  )
}

/** What a container waits for that is on its way. */
const passing = ['ContainerCreating', 'PodInitializing']

/** One sentence for each pod that does not run, and will not by itself. */
export function podProblems(pods: readonly Pod[]): string[] {
  return pods.flatMap(({ metadata, status }) => {
    const name = metadata?.name ?? ''
    const { phase, reason, message } = status ?? {}
    if (phase === 'Failed' && reason !== undefined) return [sentence(name, reason, message)]
    const statuses = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])]
    const waiting = statuses.flatMap(({ state }) => state?.waiting ?? [])
    const stuck = waiting.find((one) => one.reason !== undefined && !passing.includes(one.reason))
    return stuck === undefined ? [] : [sentence(name, stuck.reason, stuck.message)]
  })
}

function sentence(name: string, reason: string | undefined, message: string | undefined): string {
  return [name, reason, message?.replaceAll('\n', ' ').slice(0, reasonLimit)].filter(Boolean).join(': ')
}

/** Whether every container of it runs, or it is done. */
export function isUp({ spec, status }: Pod): boolean {
  if (status?.phase === 'Succeeded' || status?.phase === 'Failed') return true
  const running = (status?.containerStatuses ?? []).filter(({ state }) => state?.running !== undefined)
  return running.length > 0 && running.length === spec?.containers?.length
}

/** Files that say the same name, of which the kubelet runs one: a sentence for each name. */
export function sharedNames(files: readonly { path: string; name: string }[]): string[] {
  const byName = Map.groupBy(files, ({ name }) => name)
  return [...byName].flatMap(([name, same]) =>
    same.length < 2
      ? []
      : [`${same.map(({ path }) => basename(path)).join(' and ')} are all ${name}: one of them runs`],
  )
}
