import { request } from '../../base/http.ts'

/** What a Docker Engine says of itself, as far as a kubelet's pods depend on it. */
export interface DockerFacts {
  /** Such as 28.5.2. */
  readonly version: string
  /** Such as 1.51. */
  readonly apiVersion: string
  /** Where it keeps containers and their logs, as it sees it. */
  readonly rootDir: string
  /** The bridge of its own network; undefined: it has none. */
  readonly bridge: string | undefined
}

/** Rejects when nobody answers, or answers something else. */
export async function readDocker(socketPath: string, signal?: AbortSignal): Promise<DockerFacts> {
  const ask = (path: string) => askDocker({ socketPath, path, signal })
  const [version, info, network] = await Promise.all([
    ask('/version'),
    ask('/info'),
    ask('/networks/bridge').catch(() => undefined),
  ])
  const options = field(network, 'Options')
  return {
    version: text(field(version, 'Version')) ?? 'of no version',
    apiVersion: text(field(version, 'ApiVersion')) ?? '0',
    rootDir: text(field(info, 'DockerRootDir')) ?? '/var/lib/docker',
    bridge: text(field(options, 'com.docker.network.bridge.name')),
  }
}

/** Resolves when it answers. */
export async function pingDocker(socketPath: string, signal: AbortSignal): Promise<void> {
  const { status } = await request({ url: 'http://docker/_ping', socketPath, signal })
  if (status !== 200) throw new Error(`Docker at ${socketPath} answers ${status}`)
}

async function askDocker({
  socketPath,
  path,
  signal,
}: {
  socketPath: string
  path: string
  signal?: AbortSignal | undefined
}): Promise<unknown> {
  const { status, body } = await request({
    url: `http://docker${path}`,
    socketPath,
    ...(signal && { signal }),
  })
  if (status !== 200) throw new Error(`Docker at ${socketPath} answers ${path} with ${status}`)
  return JSON.parse(body)
}

function field(value: unknown, name: string): unknown {
  return value instanceof Object && Object.hasOwn(value, name)
    ? (value as Readonly<Record<string, unknown>>)[name]
    : undefined
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}
