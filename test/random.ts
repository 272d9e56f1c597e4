export type Random = (limit: number) => number

/** Whole numbers from 0 to below a limit, the same for a seed in each run. */
export function randomNumbers(seed: number): Random {
  // Neighbours have nothing in common.
  let state = Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) >>> 0
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}

export function oneOf<Item>(random: Random, items: readonly Item[]): Item {
  return items[random(items.length)] as Item
}

export function randomBytes(random: Random, limit: number): Buffer {
  return Buffer.from(Array.from({ length: random(limit) }, () => random(256)))
}

/** What a fuzzer has to do; FUZZ_CASES and FUZZ_SEED are for more than the gate has time for. */
export interface FuzzPlan {
  readonly cases: number
  /** Of the first case; each further one has the next. */
  readonly firstSeed: number
  /** Only a hang takes this long. */
  readonly timeoutMs: number
}

export function fuzzCases(usual: number): FuzzPlan {
  const { FUZZ_CASES, FUZZ_SEED = 1 } = process.env
  const cases = Number(FUZZ_CASES ?? usual)
  return { cases, firstSeed: Number(FUZZ_SEED), timeoutMs: 60_000 + cases * 100 }
}

/** Runs all cases, some at a time; each has a seed of its own, which is in the message when it fails. */
export async function fuzz(
  { cases, firstSeed }: FuzzPlan,
  tryCase: (random: Random, seed: number) => Promise<void>,
): Promise<void> {
  let next = firstSeed
  const worker = async (): Promise<void> => {
    while (next < firstSeed + cases) {
      const seed = next++
      try {
        await tryCase(randomNumbers(seed), seed)
      } catch (cause) {
        throw new Error(`the case with the seed ${seed} fails (FUZZ_SEED=${seed} FUZZ_CASES=1)`, { cause })
      }
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

const atOnce = 8
