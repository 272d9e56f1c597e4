/** More edits than this and a name was hardly meant. */
const editLimit = 2

/** The name that was probably meant: differently joined or capitalised, or a few letters off. */
export function suggest(given: string, names: readonly string[]): string | undefined {
  const plain = normalize(given)
  const same = names.find((name) => normalize(name) === plain)
  if (same !== undefined) return same
  // A name of few letters is a few edits from everything.
  const limit = Math.min(editLimit, Math.floor(plain.length / 3))
  const [best] = names
    .map((name) => ({ name, edits: editDistance(plain, normalize(name)) }))
    .filter(({ edits }) => edits <= limit)
    .sort((a, b) => a.edits - b.edits)
  return best?.name
}

function normalize(name: string): string {
  return name.toLowerCase().replace(/[-_.]/g, '')
}

/** Letters to insert, delete, replace or swap with their neighbour (optimal string alignment). */
function editDistance(from: string, to: string): number {
  let beforePrevious: number[] = []
  let previous = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i++) {
    const current = [i]
    for (let j = 1; j <= to.length; j++) {
      const replace = (previous[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1)
      const edit = Math.min((previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, replace)
      const isSwap = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1]
      current.push(isSwap ? Math.min(edit, (beforePrevious[j - 2] ?? 0) + 1) : edit)
    }
    beforePrevious = previous
    previous = current
  }
  return previous[to.length] ?? 0
}
