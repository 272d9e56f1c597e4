import { allDone } from '../base/all-done.ts'
import { AppError, errorCode } from '../base/errors.ts'
import { type HttpResponse, request } from '../base/http.ts'

/** The kubelet's (k8s.io/kubelet/pkg/types), on containers and sandboxes alike. */
const uidLabel = 'io.kubernetes.pod.uid'
/** Of the list of all containers. */
const listMaxBytes = 64 << 20
const removalTimeoutMs = 60_000
/** Somebody removes it, or has. */
const goneStatuses: readonly number[] = [404, 409]

interface Container {
  readonly Id: string
  readonly Labels?: Readonly<Record<string, string>> | null
}

/**
 * Removes the containers of these pods from a Docker Engine, and no others: it may have those of another kubelet. Where no
 * Docker runs there is nothing to end. Rejects with DOCKER_PODS.
 */
export async function removeDockerPods(socketPath: string, podUids: ReadonlySet<string>): Promise<void> {
  const filters = encodeURIComponent(JSON.stringify({ label: [uidLabel] }))
  const url = `http://docker/containers/json?all=true&filters=${filters}`
  let list: HttpResponse
  try {
    list = await request({ url, socketPath, maxBytes: listMaxBytes })
  } catch (error) {
    if (['ENOENT', 'ECONNREFUSED'].includes(errorCode(error) ?? '')) return
    throw error
  }
  if (list.status !== 200) throw refused('list containers', list)
  const own = (JSON.parse(list.body) as readonly Container[]).filter(({ Labels }) =>
    podUids.has(Labels?.[uidLabel] ?? ''),
  )
  await allDone(own.map(({ Id }) => remove(socketPath, Id)))
}

async function remove(socketPath: string, id: string): Promise<void> {
  const url = `http://docker/containers/${encodeURIComponent(id)}?force=true&v=true`
  const answer = await request({ url, socketPath, method: 'DELETE', timeoutMs: removalTimeoutMs })
  if (answer.status >= 300 && !goneStatuses.includes(answer.status))
    throw refused('remove a container', answer)
}

function refused(what: string, { status, body }: HttpResponse): AppError {
  return new AppError(`Docker cannot ${what}: it answers ${status}: ${body.trim().slice(0, 300)}`, {
    code: 'DOCKER_PODS',
  })
}
