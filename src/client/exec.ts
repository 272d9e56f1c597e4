import { Exec, KubeConfig } from '@kubernetes/client-node'
import { AppError, describeError } from '../base/errors.ts'
import type { TlsIdentity } from '../base/http.ts'

export interface ExecOptions {
  /** https://HOST:PORT of a kubelet. */
  readonly url: string
  readonly tls: TlsIdentity
  readonly namespace: string
  readonly pod: string
  readonly container: string
  readonly command: readonly string[]
  /** undefined: the command has none. */
  readonly stdin: NodeJS.ReadStream | undefined
  readonly stdout: NodeJS.WriteStream
  /** With a terminal of its own there is but one stream. */
  readonly stderr: NodeJS.WriteStream
  readonly tty: boolean
}

/** What is looked at of isomorphic-ws' socket. */
interface Socket {
  readonly protocol: string
  readonly bufferedAmount: number
  readonly send: (data: Buffer, sent?: () => void) => void
  readonly close: () => void
  onclose: (event: { readonly reason?: string }) => void
  onerror: (event: { readonly message?: string }) => void
}

/** The streams of a connection, by the first byte of each message (k8s.io/streaming, wsstream). */
const channels = { stdin: 0, stdout: 1, stderr: 2, status: 3, size: 4, close: 255 } as const
/** The version that can say that the input has ended. */
const closingProtocol = 'v5.channel.k8s.io'
const bufferLimitBytes = 1 << 20

interface Status {
  readonly status?: string
  readonly message?: string
  readonly reason?: string
  readonly details?: {
    readonly causes?: readonly { readonly reason?: string; readonly message?: string }[]
  } | null
}

/** Runs a command in a container, as `kubectl exec`, at the kubelet itself; resolves with its exit code. Rejects with POD_EXEC. */
export async function exec(options: ExecOptions): Promise<number> {
  const { stdin, stdout, stderr } = options
  const ended = Promise.withResolvers<Status | undefined>()
  const { handler } = new Exec(configOf(options))
  const socket = await connect(() =>
    handler.connect(pathOf(options), null, (channel: number, data: Buffer) => {
      if (channel === channels.stdout) stdout.write(data)
      else if (channel === channels.stderr) stderr.write(data)
      else if (channel === channels.status) ended.resolve(JSON.parse(data.toString()) as Status)
      return channel !== channels.status
    }),
  )
  socket.onclose = () => ended.resolve(undefined)
  socket.onerror = ({ message }) => ended.reject(failed(message ?? 'the connection broke'))
  if (stdin !== undefined) pass(stdin, socket)
  if (options.tty) followSize(stdout, socket)
  try {
    const status = await ended.promise
    await Promise.all([stdout, stderr].map(flushed))
    return exitCodeOf(status)
  } finally {
    stdin?.destroy()
    socket.close()
  }
}

/** Whoever reads it may be slower than the command. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => stream.write('', () => resolve()))
}

function configOf({ url, tls }: ExecOptions): KubeConfig {
  const base64 = (text = '') => Buffer.from(text).toString('base64')
  const config = new KubeConfig()
  config.loadFromOptions({
    clusters: [{ name: 'kubelet', server: url, caData: base64(tls.ca), skipTLSVerify: false }],
    users: [{ name: 'pod-client', certData: base64(tls.cert), keyData: base64(tls.key) }],
    contexts: [{ name: 'kubelet', cluster: 'kubelet', user: 'pod-client' }],
    currentContext: 'kubelet',
  })
  return config
}

/** As the API server asks a kubelet (k8s.io/kubelet/pkg/cri/streaming/remotecommand). */
function pathOf({ namespace, pod, container, command, stdin, tty }: ExecOptions): string {
  const query = new URLSearchParams([
    ...command.map((word): [string, string] => ['command', word]),
    ...(stdin === undefined ? [] : [['input', '1'] as [string, string]]),
    ['output', '1'],
    tty ? ['tty', '1'] : ['error', '1'],
  ])
  return `/exec/${[namespace, pod, container].map(encodeURIComponent).join('/')}?${query.toString()}`
}

async function connect(open: () => Promise<unknown>): Promise<Socket> {
  try {
    return (await open()) as Socket
  } catch (error) {
    const { message = describeError(error) } = error as { message?: string }
    throw failed(message)
  }
}

/** The input waits while what was read before is on its way. */
function pass(stdin: NodeJS.ReadStream, socket: Socket): void {
  stdin.on('data', (chunk: Buffer) => {
    if (socket.bufferedAmount > bufferLimitBytes) stdin.pause()
    socket.send(Buffer.concat([Buffer.of(channels.stdin), chunk]), () => {
      if (stdin.isPaused() && socket.bufferedAmount <= bufferLimitBytes) stdin.resume()
    })
  })
  stdin.on('end', () => {
    if (socket.protocol === closingProtocol) socket.send(Buffer.of(channels.close, channels.stdin))
  })
}

function followSize(stdout: NodeJS.WriteStream, socket: Socket): void {
  const tell = () => {
    const size = JSON.stringify({ Width: stdout.columns, Height: stdout.rows })
    socket.send(Buffer.concat([Buffer.of(channels.size), Buffer.from(size)]))
  }
  stdout.on('resize', tell)
  tell()
}

export function exitCodeOf(status: Status | undefined): number {
  if (status === undefined) throw failed('the connection ended before the command')
  if (status.status === 'Success') return 0
  const code = status.details?.causes?.find(({ reason }) => reason === 'ExitCode')?.message
  if (status.reason === 'NonZeroExitCode' && code !== undefined) return Number(code)
  throw failed(status.message ?? 'no reason is known')
}

function failed(reason: string): AppError {
  return new AppError(`cannot run the command: ${reason}`, { code: 'POD_EXEC' })
}
