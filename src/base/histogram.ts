/** Counts observations by upper bounds, as Prometheus' histograms do. */
export class Histogram {
  readonly bounds: readonly number[]
  /** How many observations fell between a bound and the one before it; the last ones are beyond all. */
  readonly counts: number[]
  sum = 0
  count = 0

  constructor(bounds: readonly number[]) {
    this.bounds = bounds
    this.counts = [...bounds, 0].fill(0)
  }

  observe(value: number): void {
    let place = 0
    while (place < this.bounds.length && value > (this.bounds[place] as number)) place++
    this.counts[place] = (this.counts[place] as number) + 1
    this.sum += value
    this.count++
  }
}
