import { readFileSync, readdirSync } from 'node:fs'
import type { Histogram } from './histogram.ts'

const startedSeconds = (Date.now() - performance.now()) / 1000

type Labels = Readonly<Record<string, string>>

/** Writes metrics in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/ */
export class Exposition {
  #text = ''

  get text(): string {
    return this.#text
  }

  gauge(name: string, help: string, value: number, labels?: Labels): void {
    this.#head(name, help, 'gauge')
    this.#sample(name, value, labels)
  }

  counter(name: string, help: string, value: number): void {
    this.#head(name, help, 'counter')
    this.#sample(name, value)
  }

  counters(name: string, help: string, samples: Iterable<readonly [Labels, number]>): void {
    this.#head(name, help, 'counter')
    for (const [labels, value] of samples) this.#sample(name, value, labels)
  }

  histogram(name: string, help: string, { bounds, counts, sum, count }: Histogram): void {
    this.#head(name, help, 'histogram')
    let below = 0
    for (const [place, bound] of bounds.entries()) {
      below += counts[place] ?? 0
      this.#sample(`${name}_bucket`, below, { le: String(bound) })
    }
    this.#sample(`${name}_bucket`, count, { le: '+Inf' })
    this.#sample(`${name}_sum`, sum)
    this.#sample(`${name}_count`, count)
  }

  #head(name: string, help: string, type: string): void {
    this.#text += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`
  }

  #sample(name: string, value: number, labels: Labels = {}): void {
    const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`)
    this.#text += `${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${value}\n`
  }
}

/** Of this process, under the names that all have. */
export function processMetrics(metrics: Exposition): void {
  const { user, system } = process.cpuUsage()
  metrics.counter(
    'process_cpu_seconds_total',
    'Total user and system CPU time spent in seconds.',
    (user + system) / 1e6,
  )
  metrics.gauge('process_resident_memory_bytes', 'Resident memory size in bytes.', process.memoryUsage.rss())
  metrics.gauge(
    'process_start_time_seconds',
    'Start time of the process since unix epoch in seconds.',
    startedSeconds,
  )
  metrics.gauge('process_open_fds', 'Number of open file descriptors.', readdirSync('/proc/self/fd').length)
  const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1]
  metrics.gauge('process_max_fds', 'Maximum number of open file descriptors.', Number(limit ?? 0))
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}
