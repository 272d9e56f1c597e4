import { expect, test } from 'vitest'
import { denialIn } from '../../../../src/cluster/join/denial.ts'
import { certificateRequest } from '../../../fixtures/certificate-request.ts'

const ours = { username: 'system:bootstrap:abcdef', nodeName: 'a' }

function denied(given: { name: string; at: number; username?: string; message?: string }) {
  const { name, at, username = ours.username, message = 'NameInUse' } = given
  const subject = [
    ['O', 'system:nodes'],
    ['CN', `system:node:${name}`],
  ] as const
  return {
    metadata: { creationTimestamp: `2026-01-01T00:00:0${at}Z` },
    spec: { username, request: Buffer.from(certificateRequest({ subject })).toString('base64') },
    status: { conditions: [{ type: 'Denied', message }] },
  }
}

test('of those that were refused the newest of this Node says why, and those of others say nothing', () => {
  const others = [
    denied({ name: 'b', at: 9 }),
    denied({ name: 'a', at: 9, username: 'system:bootstrap:fedcba' }),
  ]
  const damaged = { ...denied({ name: 'a', at: 9 }), spec: { username: ours.username, request: 'no' } }
  expect(denialIn([{}, damaged, ...others], ours)).toBeUndefined()
  const [first, last] = [1, 2].map((at) => denied({ name: 'a', at, message: `message ${at}` }))
  expect(denialIn([last!, first!, ...others], ours)).toBe(
    'the cluster has refused its certificate: message 2',
  )
})
