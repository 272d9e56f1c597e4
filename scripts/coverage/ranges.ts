/** What V8 says of the scripts of one process: https://chromedevtools.github.io/devtools-protocol/v8/Profiler/#type-ScriptCoverage */
export interface ScriptCoverage {
  readonly url: string
  readonly functions: readonly FunctionCoverage[]
}

interface FunctionCoverage {
  readonly ranges: readonly Range[]
  readonly isBlockCoverage: boolean
}

interface Range {
  readonly startOffset: number
  readonly endOffset: number
  readonly count: number
}

/** What all processes together ran of one text. */
export class TextCoverage {
  /** 1 for each UTF-16 unit that some process ran. */
  readonly ran: Uint8Array
  /** Functions and the blocks in them, START:END, that some process ran otherwise than what is around them. */
  readonly branches = new Set<string>()

  constructor(length: number) {
    this.ran = new Uint8Array(length)
  }

  add({ functions }: Pick<ScriptCoverage, 'functions'>): void {
    const ranges = functions.flatMap((one) => one.ranges)
    // The innermost range counts; it comes later in this order than what is around it.
    const ordered = ranges.toSorted((a, b) => a.startOffset - b.startOffset || b.endOffset - a.endOffset)
    const ran = new Uint8Array(this.ran.length)
    for (const { startOffset, endOffset, count } of ordered)
      ran.fill(count > 0 ? 1 : 0, startOffset, endOffset)
    ran.forEach((value, at) => {
      if (value === 1) this.ran[at] = 1
    })
    // The first one of all is the whole script.
    for (const { startOffset, endOffset } of ordered.slice(1))
      this.branches.add(`${startOffset}:${endOffset}`)
  }

  /** How many branches there are and how many of them some process ran. */
  countBranches(): { total: number; covered: number } {
    const branches = [...this.branches].map((key) => key.split(':').map(Number) as [number, number])
    const starts = branches.map(([start]) => start).toSorted((a, b) => a - b)
    const covered = branches.filter(([start, end]) => {
      const inner = starts.find((other) => other > start) ?? end
      return this.ran.subarray(start, Math.min(end, inner)).includes(1)
    })
    return { total: branches.length, covered: covered.length }
  }
}
