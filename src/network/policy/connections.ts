import type { Counts } from './nft.ts'
import { type Direction, directions } from './ruleset.ts'

const verdicts = ['allowed', 'refused'] as const satisfies readonly (keyof Counts)[]

type Total = [labels: { direction: Direction; verdict: keyof Counts }, count: number]

/** How many there were: the kernel counts from nothing again whenever all rules are made anew, and this goes on. */
export class Connections {
  #before: readonly Total[] = []
  /** Of the rules that are there. */
  #counts: Counts | undefined

  get counts(): Counts | undefined {
    return this.#counts
  }

  /** What the kernel says; undefined: nothing. */
  read(counts: Counts | undefined): void {
    this.#counts = counts ?? this.#counts
  }

  remade(): void {
    this.#before = this.totals()
    this.#counts = undefined
  }

  totals(): Total[] {
    const all = directions.flatMap((direction) => verdicts.map((verdict) => ({ direction, verdict })))
    return all.map((labels, place) => {
      const now = this.#counts?.[labels.verdict][labels.direction] ?? 0
      return [labels, (this.#before[place]?.[1] ?? 0) + now]
    })
  }
}
