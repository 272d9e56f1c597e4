import { readFile } from 'node:fs/promises'
import { request } from '../../base/http.ts'
import { readCertificateRequest } from '../../pki/certificate-request.ts'

const clientSigner = 'kubernetes.io/kube-apiserver-client-kubelet'

/** What is looked at of a CertificateSigningRequest. */
interface Request {
  readonly metadata?: { readonly creationTimestamp?: string }
  readonly spec?: { readonly username?: string; readonly request?: string }
  readonly status?: {
    readonly conditions?: readonly { readonly type?: string; readonly message?: string }[]
  }
}

/**
 * Why the cluster gives a machine that joins no certificate, as far as it says so; undefined: it may come yet. Asks with the token that
 * its kubelet asks with.
 */
export async function whyDenied(given: {
  readonly server: string
  readonly nodeName: string
  readonly caFile: string
  readonly bootstrapKubeconfig: string
  readonly signal: AbortSignal
}): Promise<string | undefined> {
  const { server, nodeName, caFile, bootstrapKubeconfig, signal } = given
  const [ca, kubeconfig] = await Promise.all(
    [caFile, bootstrapKubeconfig].map((path) => readFile(path, 'utf8')),
  )
  const [, token, id] = /\btoken: "?((\w+)\.\w+)/.exec(kubeconfig ?? '') ?? []
  if (token === undefined || id === undefined) return undefined
  const { status, body } = await request({
    url: `${server}/apis/certificates.k8s.io/v1/certificatesigningrequests?fieldSelector=spec.signerName%3D${encodeURIComponent(clientSigner)}`,
    tls: { ca },
    headers: { authorization: `Bearer ${token}` },
    signal,
  })
  if (status === 401) return `its token ${id} has expired, or was deleted: start it with a new one`
  if (status !== 200) return undefined
  const { items = [] } = JSON.parse(body) as { items?: readonly Request[] }
  return denialIn(items, { username: `system:bootstrap:${id}`, nodeName })
}

/** The newest one's of those that this token has asked for and that are for this Node. Pure. */
export function denialIn(
  items: readonly Request[],
  { username, nodeName }: { username: string; nodeName: string },
): string | undefined {
  const denied = items.flatMap(({ metadata, spec, status }) => {
    const message = status?.conditions?.find(({ type }) => type === 'Denied')?.message
    if (message === undefined || spec?.username !== username || nodeNameIn(spec.request) !== nodeName)
      return []
    return [{ at: metadata?.creationTimestamp ?? '', message }]
  })
  const newest = denied.toSorted((one, other) => one.at.localeCompare(other.at)).at(-1)
  return newest && `the cluster has refused its certificate: ${newest.message.slice(0, 500)}`
}

function nodeNameIn(request = ''): string | undefined {
  try {
    const { commonName } = readCertificateRequest(Buffer.from(request, 'base64').toString())
    return /^system:node:(.*)$/.exec(commonName)?.[1]
  } catch {
    return undefined
  }
}
