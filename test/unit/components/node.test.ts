import { expect, test } from 'vitest'
import { pressuresOf, Reports } from '../../../src/components/node.ts'

const minute = 60_000

test('a Node that is written down as Ready is so while its kubelet reports', () => {
  const reports = new Reports()
  const look = (reportedAt: string | undefined, minutes: number) => () =>
    reports.requireNew(reportedAt, minutes * minute)
  for (const at of [0, 5, 10, 15]) look(`report at ${at}`, at)()
  look('report at 15', 26)()
  expect(look('report at 15', 27)).toThrow('the kubelet could not report since report at 15')
  look('report at 28', 28)()
  // A version that does not say when is believed.
  for (const at of [28, 60]) look(undefined, at)()
})

test('a Node that is Ready and takes no new pods says why', () => {
  const message = 'kubelet has disk pressure'
  const conditions = [
    { type: 'Ready', status: 'True' },
    { type: 'MemoryPressure', status: 'False', message: 'kubelet has sufficient memory available' },
    { type: 'DiskPressure', status: 'True', message },
  ]
  expect(pressuresOf({ status: { conditions } })).toEqual([`it takes no new pods: DiskPressure, ${message}`])
  expect(pressuresOf({})).toEqual([])
})
