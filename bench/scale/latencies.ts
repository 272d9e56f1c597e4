/*
 * How long kube-apiserver's requests take, from its own metrics, as Kubernetes' service levels count them: for each
 * verb of each resource, 99 % of the calls of a window may take a second where they are about one object, and 30 seconds
 * where they list. Watches, and what lasts as long as its user wants, are left out.
 */

/** "mutating POST pods/binding" */
type Call = string

export type Level = 'mutating' | 'single' | 'list'

/** Of a kind of calls, how many took at most so many seconds: cumulative, as the API server counts since its start. */
export type Histograms = ReadonlyMap<Call, ReadonlyMap<number, number>>

export interface Latency {
  readonly level: Level
  readonly call: string
  readonly count: number
  readonly p99Seconds: number
}

/** What may be asked of 99 of 100. */
export const limitSeconds: Readonly<Record<Level, number>> = { mutating: 1, single: 1, list: 30 }
/** Of fewer calls of a kind, the 99th of 100 is the slowest one. */
export const enoughCalls = 100

const metric = 'apiserver_request_duration_seconds_bucket'
const lasting = new Set(['exec', 'attach', 'portforward', 'proxy', 'log'])
const mutating = new Set(['POST', 'PUT', 'PATCH', 'DELETE', 'APPLY', 'DELETECOLLECTION'])

/** From the text of /metrics. */
export function readHistograms(text: string): Histograms {
  const found = new Map<Call, Map<number, number>>()
  for (const line of text.split('\n')) {
    if (!line.startsWith(`${metric}{`)) continue
    const end = line.lastIndexOf('}')
    const labels = labelsOf(line.slice(metric.length + 1, end))
    const call = callOf(labels)
    if (call === undefined) continue
    const le = labels['le'] === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels['le'])
    const buckets = found.get(call) ?? new Map<number, number>()
    found.set(call, buckets.set(le, (buckets.get(le) ?? 0) + Number(line.slice(end + 1))))
  }
  return found
}

/** What came between two readings, the slowest first; kinds of calls of which there were none are left out. */
export function latenciesBetween(before: Histograms, after: Histograms): Latency[] {
  const found: Latency[] = []
  for (const [call, buckets] of after) {
    const earlier = before.get(call)
    const window = new Map([...buckets].map(([le, count]) => [le, count - (earlier?.get(le) ?? 0)]))
    const count = window.get(Number.POSITIVE_INFINITY) ?? 0
    if (count <= 0) continue
    const [level = '', ...words] = call.split(' ')
    found.push({ level: level as Level, call: words.join(' '), count, p99Seconds: quantile(window, 0.99) })
  }
  return found.toSorted((a, b) => b.p99Seconds - a.p99Seconds)
}

/** The slowest of a level: of those with enough calls to say so, and of lists, which are few, of all. */
export function slowestOf(level: Level, latencies: readonly Latency[]): Latency | undefined {
  return latencies.find((one) => one.level === level && (level === 'list' || one.count >= enoughCalls))
}

/** As Prometheus has it: within a bucket calls are taken to be spread evenly, and what is beyond the last is at its edge. */
export function quantile(buckets: ReadonlyMap<number, number>, share: number): number {
  const edges = [...buckets].toSorted(([a], [b]) => a - b)
  const rank = share * (buckets.get(Number.POSITIVE_INFINITY) ?? 0)
  let [lower, below] = [0, 0]
  for (const [le, count] of edges) {
    if (count >= rank && le !== Number.POSITIVE_INFINITY)
      return lower + ((le - lower) * (rank - below)) / Math.max(count - below, 1)
    if (le !== Number.POSITIVE_INFINITY) [lower, below] = [le, count]
  }
  return lower
}

function callOf(labels: Readonly<Record<string, string>>): Call | undefined {
  const { verb = '', resource = '', subresource = '', scope = '' } = labels
  if (resource === '' || lasting.has(subresource)) return undefined
  const level = levelOf(verb, scope)
  if (level === undefined) return undefined
  const what = subresource === '' ? resource : `${resource}/${subresource}`
  return `${level} ${verb} ${what}${level === 'list' ? ` of a ${scope}` : ''}`
}

function levelOf(verb: string, scope: string): Level | undefined {
  if (mutating.has(verb)) return 'mutating'
  if (verb !== 'GET' && verb !== 'LIST') return undefined
  return scope === 'resource' ? 'single' : 'list'
}

/** None of these has a quote or a comma in its value. */
function labelsOf(text: string): Record<string, string> {
  return Object.fromEntries(
    [...text.matchAll(/(\w+)="([^"]*)"/g)].map(([, name = '', value = '']) => [name, value]),
  )
}
