/*
 * How a further server learns of its cluster: it finds whom the token is for as an agent does (discovery.ts), and is given the
 * bundle of that token, which tells all else. With the authority in it, it is a server like the others from then on.
 */
import { Api } from '../../api/client.ts'
import { AppError } from '../../base/errors.ts'
import type { TlsIdentity } from '../../base/http.ts'
import { authorityOf } from '../../pki/authority.ts'
import { adminLeaf, issueLeaf } from '../../pki/leaves.ts'
import {
  ask,
  dataOf,
  findCluster,
  type FindOptions,
  nameInUse,
  refused,
  unknownToken,
  versionOf,
} from './discovery.ts'
import { readPromises, writePromises } from './promises.ts'
import {
  bundleKey,
  bundleName,
  bundleNamespace,
  openBundle,
  pairOf,
  type ServerBundle,
} from './server-bundle.ts'
import { takeBack } from './removed-nodes.ts'
import { refusalOfServerSkew } from './skew.ts'
import { promisesLimit } from './verdict.ts'

/** Of the write of a promise that somebody else was faster with. */
const writesLimit = 10

export interface ServerDiscoveryOptions extends FindOptions {
  /** Of the token. */
  readonly key: string
  /** v1.37.1 of this machine's Kubernetes. */
  readonly version: string
}

export interface FoundCluster {
  /** By which it was found: https://HOST:PORT */
  readonly server: string
  readonly bundle: ServerBundle
  /** The admin's, at any server. */
  readonly tls: TlsIdentity
}

/** Nothing is written here. Rejects as `discover`. */
export async function discoverAsServer(options: ServerDiscoveryOptions): Promise<FoundCluster> {
  const { server, version, now = new Date() } = options
  const { serverCa, tls } = await findCluster(options)
  const skew = refusalOfServerSkew({ own: version, server: await versionOf(options, tls) })
  if (skew !== undefined) throw refused(server, skew.reason, skew.remedy)
  const bundle = await bundleOf(options, tls)
  const { certificate: cert, key } = issueLeaf(
    adminLeaf,
    authorityOf('client', pairOf(bundle, 'client')),
    now,
  )
  return { server, bundle, tls: { ca: serverCa, checkedAs: '127.0.0.1', cert, key } }
}

async function bundleOf(options: ServerDiscoveryOptions, tls: TlsIdentity): Promise<ServerBundle> {
  const { server, token } = options
  const path = `/api/v1/namespaces/${bundleNamespace}/secrets/${bundleName(token.id)}`
  const answer = await ask(options, { path, tls, token })
  if ([403, 404].includes(answer.status))
    throw unknownToken(
      server,
      `there are no keys for the token ${token.id}, as there are for those of servers`,
    )
  if (answer.status !== 200) throw new AppError(`${server} answers ${answer.status}`, { code: 'JOIN_ANSWER' })
  const sealed = Buffer.from(dataOf(answer, server)[bundleKey] ?? '', 'base64')
  try {
    return openBundle(sealed, options)
  } catch (error) {
    throw refused(
      server,
      `what it has for the token ${token.id} ${error instanceof Error ? error.message : 'cannot be read'}`,
      'look whether the token is written as it was printed; else make another one, with k8s token create --role=server',
    )
  }
}

export interface NameOptions {
  readonly nodeName: string
  /** What this machine is known by among those who are promised a name. */
  readonly holder: string
  /** This machine has had the name before: that a Node has it is no obstacle. */
  readonly isKnown: boolean
  readonly signal: AbortSignal
}

/** Rejects with JOIN_REFUSED when the name is that of another Node, or is promised to another machine. */
export async function requireFreeName(found: FoundCluster, options: NameOptions): Promise<void> {
  using api = new Api({ ...found, signal: options.signal })
  await readFreeName(api, found.server, options)
}

/** The same, and has it promised to this machine, so that nobody else gets it until its Node is there. Repeatable. */
export async function promiseName(found: FoundCluster, options: NameOptions): Promise<void> {
  using api = new Api({ ...found, signal: options.signal })
  const { nodeName, holder } = options
  for (let writes = 0; writes < writesLimit; writes++) {
    const promises = await readFreeName(api, found.server, options)
    const names = promises && new Map([...promises.names, [nodeName, holder]])
    const isPromised =
      promises === undefined || names === undefined || (await writePromises(api, { ...promises, names }))
    if (isPromised && (await takeBack(api, nodeName))) return
  }
  throw new AppError(`${found.server} could not keep the name ${nodeName}: others write all the time`, {
    code: 'JOIN_ANSWER',
  })
}

/** undefined: it is this machine's already. */
async function readFreeName(api: Api, server: string, { nodeName, holder, isKnown }: NameOptions) {
  const promises = await readPromises(api)
  const promised = promises.names.get(nodeName)
  if (promised === holder) return undefined
  const node = await api.get(`/api/v1/nodes/${encodeURIComponent(nodeName)}`)
  if (node !== undefined) {
    if (isKnown) return undefined
    throw nameInUse(server, nodeName)
  }
  if (promised !== undefined) {
    throw refused(
      server,
      `the name ${nodeName} is promised to another machine, whose Node has not come yet`,
      'choose another --node-name; where that machine will not come, remove its name from the ConfigMap kube-system/k8s-promised-nodes',
    )
  }
  if (promises.names.size >= promisesLimit)
    throw refused(
      server,
      `${promisesLimit} names are promised to machines that have not come`,
      'remove some from the ConfigMap kube-system/k8s-promised-nodes',
    )
  return promises
}
