import { expect, test } from 'vitest'
import { Lan } from './harness/lan.ts'
import { Machine } from './harness/machine.ts'

// The network that tests of several machines stand on.

test('machines reach each other until one is cut off, and again when it is healed', async () => {
  await using lan = await Lan.create()
  await using one = await Machine.create({ name: 'lan-one', program: '' })
  await using other = await Machine.create({ name: 'lan-other', program: '' })
  const addresses = [await lan.join(one), await lan.join(other)]
  expect(addresses).toEqual(['10.89.0.2', '10.89.0.3'])
  // Nobody listens there: who hears that has been answered.
  const reaches = async (from: Machine, address: string) => {
    const { stderr } = await from.exec(['timeout', '1', 'bash', '-c', `</dev/tcp/${address}/9`], {
      check: false,
    })
    return stderr.includes('refused')
  }
  expect(await reaches(one, '10.89.0.3')).toBe(true)
  expect(await reaches(other, '10.89.0.2')).toBe(true)
  await lan.cut(other)
  expect(await reaches(one, '10.89.0.3')).toBe(false)
  await lan.heal(other)
  expect(await reaches(one, '10.89.0.3')).toBe(true)
})
