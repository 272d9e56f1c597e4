import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorCode } from '../../base/errors.ts'
import { type HttpResponse, request, type TlsIdentity } from '../../base/http.ts'
import type { Pod, PodList } from '../../cluster/kubelet/rejections.ts'
import { kubeletUrl } from '../../config/ports.ts'
import { domain, nodeName } from '../../config/table/kinds.ts'
import { type Invocation, optionValues, requireRoot } from '../command.ts'
import { pathsOf } from '../daemon.ts'

export const podOperand = {
  placeholder: 'POD',
  description: 'the name of the pod, as k8s pod ls shows it; the name in its file will do, too',
}

export const namespaceOption = {
  namespace: {
    group: 'Pod',
    description: 'The namespace that the file of the pod names.',
    kind: nodeName,
    default: 'default',
    short: 'n',
  },
}

export const containerOptions = {
  ...namespaceOption,
  container: {
    group: 'Pod',
    description: 'Which of its containers.',
    kind: domain,
    defaultText: 'the first one',
    short: 'c',
  },
}

export interface Kubelet {
  readonly url: string
  readonly tls: TlsIdentity
}

/** How the kubelet alone of this machine is asked. Throws KUBELET_UNKNOWN where there is none. */
export async function ownKubelet(invocation: Invocation): Promise<Kubelet> {
  requireRoot('ask the kubelet')
  const { dataDir, etcDir, pkiDir } = await pathsOf(invocation)
  const [{ kubeletClientIdentity, kubeletPkiFiles }, { kubeletLayersDir, daemonLayer }] = await Promise.all([
    import('../../pki/kubelet.ts'),
    import('../../node/render/kubelet-alone.ts'),
  ])
  try {
    const text = await readFile(join(kubeletLayersDir(etcDir), daemonLayer), 'utf8')
    const { address = '0.0.0.0' } = JSON.parse(text) as { address?: string }
    return { url: kubeletUrl(address), tls: kubeletClientIdentity(kubeletPkiFiles(pkiDir)) }
  } catch (cause) {
    throw new AppError(
      `cannot ask the kubelet: no kubelet alone has run from ${dataDir}`,
      {
        code: 'KUBELET_UNKNOWN',
        remedy:
          'start one with k8s kubelet, or name its data directory with --data-dir; the pods of a cluster are shown by k8s kubectl get pods',
      },
      { cause },
    )
  }
}

/** All pods of it, by their names: the kubelet has no order. Throws KUBELET_AWAY. */
export async function listPods(kubelet: Kubelet): Promise<readonly Pod[]> {
  const { body } = await ask(kubelet, '/pods')
  const { items } = JSON.parse(body) as PodList
  const nameOf = ({ metadata }: Pod) => `${metadata?.namespace}/${metadata?.name}`
  return (items ?? []).toSorted((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1))
}

async function ask({ url, tls }: Kubelet, path: string): Promise<HttpResponse> {
  const answer = await request({ url: `${url}${path}`, tls }).catch((cause: unknown) => {
    throw errorCode(cause) === 'ECONNREFUSED' ? away(url, cause) : cause
  })
  if (answer.status === 200) return answer
  throw new AppError(`cannot ask the kubelet: it answers ${answer.status}: ${answer.body.slice(0, 300)}`, {
    code: 'KUBELET_ANSWER',
  })
}

function away(url: string, cause: unknown): AppError {
  return new AppError(
    `cannot ask the kubelet at ${url}: it does not run`,
    { code: 'KUBELET_AWAY', remedy: 'k8s status says how it is; k8s kubelet runs it' },
    { cause },
  )
}

export interface Container {
  readonly namespace: string
  readonly pod: string
  readonly container: string
}

/** Throws POD_UNKNOWN, which says what there is. */
export async function containerOf(kubelet: Kubelet, invocation: Invocation): Promise<Container> {
  const [given = ''] = invocation.operands
  const { namespace, container } = optionValues(containerOptions, invocation.flags)
  const pods = await listPods(kubelet)
  const pod = findPod(pods, { namespace, name: given })
  if (pod === undefined) {
    const names = pods.map(({ metadata }) => `${metadata?.namespace}/${metadata?.name}`).join(', ')
    throw unknown(`${namespace}/${given}`, names)
  }
  const containers = [...(pod.spec?.containers ?? []), ...(pod.spec?.initContainers ?? [])].flatMap(
    ({ name }) => name ?? [],
  )
  const [first = ''] = containers
  if (container !== undefined && !containers.includes(container))
    throw unknown(`the container ${container} of ${pod.metadata?.name}`, containers.join(', '))
  return { namespace, pod: pod.metadata?.name ?? '', container: container ?? first }
}

/** By its name, or by that in its file, to which the kubelet adds the Node's. */
export function findPod(
  pods: readonly Pod[],
  { namespace, name }: { namespace: string; name: string },
): Pod | undefined {
  const own = pods.filter(({ metadata }) => metadata?.namespace === namespace)
  return (
    own.find(({ metadata }) => metadata?.name === name) ??
    own.find(({ metadata, spec }) => metadata?.name === `${name}-${spec?.nodeName}`)
  )
}

function unknown(what: string, there: string): AppError {
  return new AppError(`cannot find ${what}: there is ${there === '' ? 'none' : there}`, {
    code: 'POD_UNKNOWN',
  })
}
