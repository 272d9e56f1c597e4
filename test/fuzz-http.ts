import { type IpcNetConnectOpts, type TcpNetConnectOpts, connect } from 'node:net'
import { type Random, oneOf, randomBytes } from './random.ts'

/** What clients of an HTTP server could send, right or wrong. */

const methods = ['GET', 'GET', 'GET', 'POST', 'HEAD', 'PUT', 'OPTIONS', 'CONNECT', 'TRACE', 'get', '', 'G\0T']
const versions = ['HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0', 'HTTP/0.9', 'HTTP/2.0', 'HTTP/9', '']
const oddTargets = [
  '',
  '/',
  '//',
  '///a',
  '*',
  '/%',
  '/%ff',
  '/%00',
  '/?',
  '/??&=',
  '/#',
  'http://',
  'http:///',
]
const moreTargets = [
  'http://a:b:c/',
  'https://[::1',
  '/\u00ff',
  '/..//..',
  'a',
  '/ /',
  `/${'a'.repeat(5000)}`,
]
const headerNames = [
  'Host',
  'Connection',
  'Content-Type',
  'Upgrade',
  'Expect',
  'Transfer-Encoding',
  'X\0',
  ' ',
]
const headerValues = [
  'a',
  '',
  'close',
  'keep-alive',
  'upgrade',
  'h2c',
  'chunked',
  '100-continue',
  'x'.repeat(3000),
]
const lengths = ['0', '5', '-1', '99999999', '1e3', '18446744073709551616', 'x']

export interface HttpWords {
  readonly targets: readonly string[]
  readonly bodies: readonly string[]
  /** Whole requests that are right. */
  readonly requests: readonly string[]
}

function randomRequest(random: Random, { targets, bodies, requests }: HttpWords): Buffer {
  if (random(2) === 0) return Buffer.from(oneOf(random, requests), 'latin1')
  const odd = random(3) === 0
  const target = odd ? oneOf(random, [...oddTargets, ...moreTargets]) : oneOf(random, targets)
  const body = oneOf(random, bodies)
  const lines = [`${oneOf(random, methods)} ${target} ${oneOf(random, versions)}`]
  if (random(5) > 0) lines.push('Host: localhost')
  if (body !== '' && random(3) > 0) lines.push(`Content-Length: ${body.length}`)
  if (random(8) === 0) lines.push(`Content-Length: ${oneOf(random, lengths)}`)
  for (let count = random(3); count > 0; count--)
    lines.push(`${oneOf(random, headerNames)}: ${oneOf(random, headerValues)}`)
  const end = random(10) === 0 ? '\n\n' : '\r\n\r\n'
  return Buffer.from(`${lines.join('\r\n')}${end}${body}`, 'latin1')
}

/** All that one client sends on its connection: some requests, half the time with bytes that are wrong. */
export function randomConversation(random: Random, words: HttpWords): Buffer {
  const requests = Array.from({ length: 1 + random(4) }, () => randomRequest(random, words))
  if (random(10) === 0) requests.push(randomBytes(random, 300))
  const bytes = Buffer.concat(requests)
  if (random(2) === 0) return bytes
  for (let count = random(6); count > 0; count--) bytes[random(bytes.length)] = random(256)
  return random(4) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes
}

/**
 * Sends bytes and, after a pause, their end; returns the statuses of what comes back. A server that does not answer at
 * once gives up a client that has nothing more to say: the pause lets it come to its answer.
 */
export async function converse(
  to: IpcNetConnectOpts | TcpNetConnectOpts,
  bytes: Buffer,
  pause: () => Promise<unknown> = () => Promise.resolve(),
): Promise<number[]> {
  const socket = connect(to)
  let answer = ''
  socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')))
  // Who is turned away may hear of it in the middle of a write.
  socket.on('error', () => undefined)
  const closed = new Promise((resolve) => socket.on('close', resolve))
  socket.write(bytes)
  await pause()
  socket.end()
  await closed
  return [...answer.matchAll(/^HTTP\/1\.1 (\d{3}) /gm)].map(([, status]) => Number(status))
}
