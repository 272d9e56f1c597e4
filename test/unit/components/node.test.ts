import { expect, test } from 'vitest'
import { pressuresOf, Reports } from '../../../src/components/node.ts'

const minute = 60_000

test('a Node that is written down as Ready is so while its kubelet reports', async () => {
  const reports = new Reports()
  const lease = async () => ({ spec: { renewTime: 'at the beginning', leaseDurationSeconds: 40 } })
  const look = (reportedAt: string | undefined, minutes: number) =>
    reports.requireNew(reportedAt, { lease, nowMs: minutes * minute })
  for (const at of [0, 5, 10, 15]) await look(`report at ${at}`, at)
  // The Lease may be renewed until it has been looked at for a while.
  for (const at of [26, 27, 28]) await look('report at 15', at)
  await expect(look('report at 15', 29)).rejects.toThrow('the kubelet could not report since report at 15')
  await look('report at 30', 30)
  // A version that does not say when is believed.
  for (const at of [30, 60]) await look(undefined, at)
})

test('a kubelet that is to report rarely is believed as long as it renews its Lease', async () => {
  const reports = new Reports()
  const look = (renewTime: string | undefined, minutes: number, leaseDurationSeconds = 40) =>
    reports.requireNew('the first report', {
      lease: async () => ({ spec: { ...(renewTime !== undefined && { renewTime }), leaseDurationSeconds } }),
      nowMs: minutes * minute,
    })
  for (const at of [0, 12, 13, 14, 20, 60]) await look(`renewal at ${at}`, at)
  await expect(look('renewal at 60', 62)).rejects.toThrow('could not report')
  // One that is renewed rarely, too.
  await look('renewal at 60', 120, 3600)
  await expect(look('renewal at 60', 240, 3600)).rejects.toThrow('could not report')
  await expect(look(undefined, 241)).rejects.toThrow('could not report')
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
