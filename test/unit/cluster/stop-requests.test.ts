import { expect, test } from 'vitest'
import { StopRequests } from '../../../src/cluster/stop-requests.ts'

function requestsOf(endPods = false) {
  const [signalled, hurried] = [new AbortController(), new AbortController()]
  const requests = new StopRequests({ signalled: signalled.signal, hurried: hurried.signal, endPods })
  const state = () => ({
    asked: requests.asked.aborted,
    hurried: requests.hurried.aborted,
    endPods: requests.endPods,
  })
  return { requests, state, signal: () => signalled.abort(), secondSignal: () => hurried.abort() }
}

test('the first request asks for a stop in good order', () => {
  const { requests, state } = requestsOf()
  expect(state()).toEqual({ asked: false, hurried: false, endPods: false })
  requests.ask({ pods: false })
  expect(state()).toEqual({ asked: true, hurried: false, endPods: false })
})

test('one that asks for the end of the pods, too, hurries nothing', () => {
  const { requests, state } = requestsOf()
  requests.ask({ pods: false })
  requests.ask({ pods: true })
  expect(state()).toEqual({ asked: true, hurried: false, endPods: true })
  requests.ask({ pods: true })
  expect(state()).toEqual({ asked: true, hurried: true, endPods: true })
})

test.each([
  [
    'two requests',
    (of: ReturnType<typeof requestsOf>) => [of.requests, of.requests].map((r) => r.ask({ pods: false })),
  ],
  [
    'a signal and a request',
    (of: ReturnType<typeof requestsOf>) => [of.signal(), of.requests.ask({ pods: false })],
  ],
  [
    'a request and a signal',
    (of: ReturnType<typeof requestsOf>) => [of.requests.ask({ pods: false }), of.signal()],
  ],
  ['two signals', (of: ReturnType<typeof requestsOf>) => [of.signal(), of.secondSignal()]],
])('%s hurry', (_, ask) => {
  const of = requestsOf()
  ask(of)
  expect(of.state()).toEqual({ asked: true, hurried: true, endPods: false })
})

test('what was asked for before it began counts', () => {
  const requests = new StopRequests({
    signalled: AbortSignal.abort(),
    hurried: AbortSignal.abort(),
    endPods: true,
  })
  expect([requests.asked.aborted, requests.hurried.aborted, requests.endPods]).toEqual([true, true, true])
})
