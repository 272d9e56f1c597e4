/** Where a position of a bundle comes from; lines and columns from 0. */
export interface Segment {
  readonly line: number
  readonly column: number
  readonly source: string
  readonly sourceLine: number
  readonly sourceColumn: number
}

const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

/** All segments of a source map (ECMA-426) that name a source. */
export function* segmentsOf(map: { sources: readonly string[]; mappings: string }): Generator<Segment> {
  let source = 0
  let sourceLine = 0
  let sourceColumn = 0
  for (const [line, group] of map.mappings.split(';').entries()) {
    let column = 0
    for (const text of group.split(',')) {
      const [columns, sources, lines, sourceColumns] = numbersOf(text)
      column += columns ?? 0
      if (sources === undefined) continue
      source += sources
      sourceLine += lines ?? 0
      sourceColumn += sourceColumns ?? 0
      yield { line, column, source: map.sources[source] ?? '', sourceLine, sourceColumn }
    }
  }
}

/** Base64 VLQ: five bits a digit, the least first; the sixth says that more follow, the very first bit is the sign. */
function numbersOf(text: string): number[] {
  const numbers: number[] = []
  let value = 0
  let shift = 0
  for (const digit of text) {
    const bits = digits.indexOf(digit)
    value += (bits & 31) * 2 ** shift
    shift += 5
    if (bits >= 32) continue
    numbers.push(value % 2 === 1 ? -Math.floor(value / 2) : value / 2)
    value = 0
    shift = 0
  }
  return numbers
}
