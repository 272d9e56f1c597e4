import { expect, test } from 'vitest'
import { AppError } from '../../../src/base/errors.ts'
import { policyAccess } from '../../../src/cluster/policy-access.ts'
import { Wakeup } from '../../../src/cluster/wakeup.ts'

test('what is in the way of a watch is told until it is over, with what helps', async () => {
  const parts = new Map<string, string | undefined>()
  const context = {
    access: { policies: { server: 'https://127.0.0.1:6443', identity: () => Promise.resolve({}) } },
    board: {
      report: ({ name, message }: { name: string; message?: string }) => void parts.set(name, message),
      forget: (name: string) => void parts.delete(name),
    },
    log: { error() {}, info() {} },
  } as unknown as Parameters<typeof policyAccess>[0]
  const end = new AbortController()
  const { signal } = end
  const wakeup = new Wakeup()
  const access = policyAccess(context, { ...{ name: 'part', what: 'the policies' }, ...{ signal, wakeup } })
  expect(access.isAway()).toBe(false)
  access.onTrouble(new AppError('cannot list the policies: HTTP 403', { code: 'API_REFUSED', status: 403 }))
  await wakeup.wait(undefined, signal)
  expect(access.isAway()).toBe(true)
  expect(parts.get('part')).toMatch(
    /HTTP 403; where the servers leave network-policy out, agents have to be told so, too/,
  )
  access.onTrouble(undefined)
  await wakeup.wait(undefined, signal)
  expect([access.isAway(), parts.size]).toEqual([false, 0])
  access.onTrouble(new Error('it does not answer'))
  expect(parts.get('part')).toBe('it does not answer')
  end.abort()
  expect(parts.size).toBe(0)
})
