import { afterAll, beforeAll, expect, test } from 'vitest'
import { renderAll, renderChanges } from '../../src/network/policy/nft.ts'
import { chance } from '../unit/network/policy/chance.ts'
import { settle } from '../unit/network/policy/objects.ts'
import { Machine } from './harness/machine.ts'

// What the kernel and nft have of rules that came change by change.

const head = { families: [4, 6], ranges: ['10.0.0.0/24', 'fd00::/64'] } as const

let machine: Machine

beforeAll(async () => {
  machine = await Machine.create({ name: 'policy-rules', program: '' })
})
afterAll(async () => {
  await machine?.[Symbol.asyncDispose]()
})

async function write(rules: string): Promise<void> {
  await machine.exec(['nft', '-f', '-'], { stdin: rules })
}

/** Without what says when something came, in an order of its own. */
async function read(): Promise<string[]> {
  const { stdout } = await machine.exec(['nft', '-j', 'list', 'table', 'inet', 'k8s-network-policy'])
  const { nftables } = JSON.parse(stdout) as { nftables: Record<string, Record<string, unknown>>[] }
  return nftables
    .flatMap((object) => Object.entries(object))
    .filter(([kind]) => kind !== 'metainfo' && kind !== 'table')
    .map(([kind, { elem, ...rest }]) => {
      const elements = Array.isArray(elem) ? elem.map((one) => JSON.stringify(one)).toSorted() : elem
      return JSON.stringify({ kind, ...rest, elements, handle: undefined })
    })
    .toSorted()
}

test.each([1, 2])('they are those of all at once, by chance: seed %i', async (seed) => {
  const { random, engine, change } = chance(seed + 1000)
  settle(engine)
  await write(renderAll(engine.rules, head))
  engine.rules.takeChanges()
  let transactions = 0
  for (let step = 0; step < 20; step++) {
    for (let count = random(4); count >= 0; count--) change()
    settle(engine)
    const changes = engine.rules.takeChanges()
    if (changes === undefined) continue
    await write(renderChanges(changes))
    transactions++
  }
  expect(transactions).toBeGreaterThan(5)
  const found = await read()
  await write(renderAll(engine.rules, head))
  expect(found).toEqual(await read())
})
