/**
 * Asks a web server in a pod of the host network, every few milliseconds, whether it is there. Runs inside the machine:
 * node observe.ts. Prints "observing" when it has begun, then "up NS": nanoseconds of the monotonic clock, which is the same for the whole host.
 */
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const pollIntervalMs = 10

console.log('observing')
while (!(await answers())) await sleep(pollIntervalMs)
console.log(`up ${process.hrtime.bigint()}`)

function answers(): Promise<boolean> {
  return new Promise((resolve) => {
    const request = http.get('http://127.0.0.1:8080/', (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    request.on('error', () => resolve(false))
  })
}
