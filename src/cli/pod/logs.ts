import { boolean, integer } from '../../config/table/kinds.ts'
import { requestStream } from '../../base/http.ts'
import { AppError } from '../../base/errors.ts'
import { type Command, type Invocation, optionValues } from '../command.ts'
import { daemonOptions } from '../daemon.ts'
import { containerOf, containerOptions, ownKubelet, podOperand } from './kubelet.ts'

const ownOptions = {
  follow: {
    group: 'Logs',
    description: 'Go on with what comes.',
    kind: boolean,
    default: false,
    short: 'f',
  },
  tail: {
    group: 'Logs',
    description: 'Only so many lines of the end.',
    kind: integer({ from: 0, to: 999_999_999 }),
    defaultText: 'all there are',
  },
  previous: {
    group: 'Logs',
    description: 'Of the container before the last restart.',
    kind: boolean,
    default: false,
    short: 'p',
  },
  timestamps: {
    group: 'Logs',
    description: 'Begin each line with its time.',
    kind: boolean,
    default: false,
  },
}

/** What a container says may come after any silence. */
const silenceLimitMs = 2 ** 31 - 1
const messageLimit = 300

export const podLogs: Command = {
  name: 'pod logs',
  description: 'Print what a container of the kubelet alone has said.',
  examples: [
    { command: 'k8s pod logs web', description: 'All of it' },
    { command: 'k8s pod logs web -f --tail=10', description: 'The last ten lines, and what comes' },
  ],
  operands: [podOperand],
  options: { ...containerOptions, ...ownOptions, ...daemonOptions },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const { follow, tail, previous, timestamps } = optionValues(ownOptions, invocation.flags)
  const kubelet = await ownKubelet(invocation)
  const { namespace, pod, container } = await containerOf(kubelet, invocation)
  const query = new URLSearchParams({
    ...(follow && { follow: 'true' }),
    ...(tail !== undefined && { tailLines: String(tail) }),
    ...(previous && { previous: 'true' }),
    ...(timestamps && { timestamps: 'true' }),
  })
  const path = ['', 'containerLogs', ...[namespace, pod, container].map(encodeURIComponent)].join('/')
  const { status, body } = await requestStream({
    url: `${kubelet.url}${path}?${query.toString()}`,
    tls: kubelet.tls,
    timeoutMs: silenceLimitMs,
    maxBytes: Number.MAX_SAFE_INTEGER,
  })
  let message = ''
  for await (const part of body) {
    if (status !== 200) message += part.toString('utf8', 0, messageLimit)
    else if (!process.stdout.write(part))
      await new Promise((resolve) => process.stdout.once('drain', resolve))
    if (message.length >= messageLimit) break
  }
  if (status === 200) return 0
  throw new AppError(`cannot read the logs of ${pod}: the kubelet answers ${status}: ${message.trim()}`, {
    code: 'KUBELET_ANSWER',
  })
}
