export type Random = (limit: number) => number

/** Whole numbers from 0 to below a limit, the same for a seed in each run. */
export function randomNumbers(seed: number): Random {
  let state = seed >>> 0
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
