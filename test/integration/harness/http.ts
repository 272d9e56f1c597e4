import type { Machine } from './machine.ts'

export interface Request {
  readonly url: string
  readonly headers?: Readonly<Record<string, string>>
  /** PEM. Without an authority the server's certificate is not verified. */
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
}

export interface Response {
  /** undefined when there was no answer; `body` then has the error. */
  readonly status: number | undefined
  readonly body: string
}

/** Runs inside the machine, whose network cannot be reached from outside; reads Request[] from stdin. */
const program = `
const https = require('node:https'), http = require('node:http')
const one = ({ url, ...options }) => new Promise((resolve) => {
  const { request } = url.startsWith('https:') ? https : http
  request(url, { ...options, rejectUnauthorized: options.ca !== undefined, timeout: 10000 }, (response) => {
    let body = ''
    response.setEncoding('utf8').on('data', (chunk) => (body += chunk))
    response.on('end', () => resolve({ status: response.statusCode, body }))
  }).on('timeout', function () { this.destroy(new Error('timeout')) })
    .on('error', (error) => resolve({ body: error.message })).end()
})
require('node:stream/consumers').json(process.stdin)
  .then((requests) => Promise.all(requests.map(one)))
  .then((responses) => process.stdout.write(JSON.stringify(responses)))
`

/** The answers, in the order of the requests. */
export async function requestInside(machine: Machine, requests: readonly Request[]): Promise<Response[]> {
  const { stdout } = await machine.exec([process.execPath, '-e', program], {
    stdin: JSON.stringify(requests),
  })
  return JSON.parse(stdout) as Response[]
}
