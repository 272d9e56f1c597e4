import { oneOf, type Random, randomNumbers } from '../random.ts'

/** What can go wrong with servers; test/soak/inject.ts does it. */
export const faultKinds = {
  'kill-etcd': { title: 'etcd is killed', servers: 1 },
  'kill-apiserver': { title: 'kube-apiserver is killed', servers: 1 },
  'kill-daemon': { title: 'the daemon is killed', servers: 1 },
  crash: { title: 'the daemon and all that it runs are killed', servers: 1 },
  'hang-etcd': { title: 'etcd hangs', servers: 1 },
  'hang-apiserver': { title: 'kube-apiserver hangs', servers: 1 },
  'hang-daemon': { title: 'the daemon hangs', servers: 1 },
  cut: { title: 'it is cut off', servers: 1 },
  'cut-in': { title: 'nothing reaches it', servers: 1 },
  'cut-out': { title: 'nothing comes from it', servers: 1 },
  stop: { title: 'it is stopped', servers: 1 },
  'cut-majority': { title: 'two are cut off', servers: 2 },
  'crash-majority': { title: 'the daemons of two and all that they run are killed', servers: 2 },
} as const

export type FaultKind = keyof typeof faultKinds

export interface Fault {
  readonly kind: FaultKind
  /** Their places among the servers. */
  readonly servers: readonly number[]
  /** How long it lasts, where it does not end by itself. */
  readonly holdMs: number
  /** How long all is well after it. */
  readonly calmMs: number
}

const shortestHoldMs = 1_000
const longestHoldMs = 12_000
const longestCalmMs = 4_000

/** Without end, and the same for a seed in each run. Each kind comes once before one comes again. */
export function* randomFaults(seed: number, serverCount: number): Generator<Fault, never> {
  const random = randomNumbers(seed)
  const all = Object.keys(faultKinds) as FaultKind[]
  for (let left: FaultKind[] = []; ; ) {
    if (left.length === 0) left = [...all]
    const kind = oneOf(random, left)
    left.splice(left.indexOf(kind), 1)
    yield {
      kind,
      servers: someOf(random, serverCount, faultKinds[kind].servers),
      holdMs: shortestHoldMs + random(longestHoldMs - shortestHoldMs),
      calmMs: random(longestCalmMs),
    }
  }
}

export function describeFault({ kind, servers, holdMs }: Fault): string {
  const whose = servers.map((server) => server + 1).join(' and ')
  return `server ${whose}: ${faultKinds[kind].title}, ${(holdMs / 1000).toFixed(1)} s`
}

function someOf(random: Random, limit: number, count: number): number[] {
  const left = Array.from({ length: limit }, (_, index) => index)
  return Array.from({ length: count }, () => left.splice(random(left.length), 1)[0] ?? 0).toSorted(
    (a, b) => a - b,
  )
}
