import { expect, test } from 'vitest'
import { Lan } from './harness/lan.ts'
import { Machine } from './harness/machine.ts'
import { waitFor } from './harness/wait.ts'

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

test('a machine can be cut off one way', async () => {
  await using lan = await Lan.create()
  await using one = await Machine.create({ name: 'lan-one', program: '' })
  await using other = await Machine.create({ name: 'lan-other', program: '' })
  await lan.join(one)
  await lan.join(other)
  const connects = async () => {
    const line = '</dev/tcp/10.89.0.3/9'
    return (await one.exec(['timeout', '1', 'bash', '-c', line], { check: false })).stderr.includes('refused')
  }
  /** Whether a packet arrives: nobody listens there, and the kernel counts it. */
  const isHeard = async (from: Machine, to: Machine, address: string) => {
    const count = () => Number(/^Udp: \d+ (\d+)/m.exec(to.read('/proc/1/net/snmp'))?.[1] ?? Number.NaN)
    const before = count()
    await from.exec(['bash', '-c', `echo >/dev/udp/${address}/9`])
    return waitFor('the packet is there', () => count() > before, { timeoutMs: 2_000, intervalMs: 20 }).then(
      () => true,
      () => false,
    )
  }
  const heard = async () => [await isHeard(one, other, '10.89.0.3'), await isHeard(other, one, '10.89.0.2')]
  expect([await connects(), await heard()]).toEqual([true, [true, true]])
  await lan.cutOneWay(other, 'to')
  expect([await connects(), await heard()]).toEqual([false, [false, true]])
  await lan.heal(other)
  expect([await connects(), await heard()]).toEqual([true, [true, true]])
  await lan.cutOneWay(other, 'from')
  expect([await connects(), await heard()]).toEqual([false, [true, false]])
  await lan.heal(other)
  await lan.heal(other)
  expect([await connects(), await heard()]).toEqual([true, [true, true]])
})
