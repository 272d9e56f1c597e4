import { appendFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { findProblems } from '../soak/check.ts'
import { randomFaults } from '../soak/faults.ts'
import { formatReport, type Period } from '../soak/report.ts'
import { Rig } from '../soak/rig.ts'
import { repository } from './harness/machine.ts'
import { reportFailures } from './harness/report.ts'
import type { Traffic } from './harness/traffic.ts'

// Three servers and two agents under faults drawn at random, while clients write, watch and read: SOAK_SECONDS of them (make soak), and
// the same ones again with SOAK_SEED.

const usualSeconds = 150
/** Faults after which what clients saw is checked, and all begins anew: what is wrong is found soon after it went wrong. */
const roundFaults = 5
const directory = `${repository}/build/soak`
const seconds = setting('SOAK_SECONDS', usualSeconds)
const seed = setting('SOAK_SEED', Date.now() % 1_000_000)
/** A fault that is never recovered from ends sooner. */
const limitMs = seconds * 1000 + 20 * 60_000

let rig: Rig

beforeAll(async () => {
  rig = await Rig.create({ name: 'soak', servers: 3, agents: 2 })
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory, { recursive: true })
})
afterAll(async () => {
  await rig?.[Symbol.asyncDispose]()
})
reportFailures(() => rig)

test(
  `nothing acknowledged is lost, read stale, or passed over by a watch (SOAK_SEED=${seed} SOAK_SECONDS=${seconds})`,
  async () => {
    const faults = randomFaults(seed, rig.servers.length)
    const endMs = Date.now() + seconds * 1000
    tell(`SOAK_SEED=${seed} SOAK_SECONDS=${seconds}`)
    while (Date.now() < endMs) {
      await using traffic = rig.startTraffic()
      await traffic.writing
      const periods: Period[] = []
      try {
        while (periods.length < roundFaults && Date.now() < endMs)
          periods.push(await rig.inject(faults.next().value))
      } catch (error) {
        // What the clients saw until then may say why.
        await judge(traffic, periods).catch((reason: unknown) => tell(String(reason)))
        throw error
      }
      expect(await judge(traffic, periods)).toEqual([])
    }
  },
  limitMs,
)

/** Tells of a round, and returns what is wrong with what clients saw. */
async function judge(traffic: Traffic, periods: readonly Period[]): Promise<string[]> {
  const seen = await traffic.stop()
  writeFileSync(`${directory}/history.json`, JSON.stringify(seen))
  const problems = findProblems(seen)
  tell([formatReport(seen, periods), ...problems].join('\n'))
  return problems
}

function setting(name: string, usual: number): number {
  const text = process.env[name] || String(usual)
  if (!/^\d{1,9}$/.test(text)) throw new Error(`cannot use ${name}=${text}: it is to be a whole number`)
  return Number(text)
}

function tell(text: string): void {
  console.log(text)
  appendFileSync(`${directory}/report.txt`, `${text}\n`)
}
