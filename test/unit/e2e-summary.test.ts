import { expect, test } from 'vitest'
import { type Report, summaryOf } from '../long/e2e/summary.ts'

function spec(name: string, State: string, Message?: string) {
  const [, sig = '', text = ''] = /^(\[.*?\]) (.*)$/.exec(name) ?? []
  return {
    ...{ ContainerHierarchyTexts: [sig], LeafNodeType: 'It', LeafNodeText: text, State },
    ...(Message !== undefined && { Failure: { Message } }),
  }
}

test('cases are counted by their groups, with why they failed or skipped themselves', () => {
  const report: Report = [
    {
      SpecReports: [
        spec('[sig-network] DNS works', 'passed'),
        spec('[sig-network] Services works', 'failed', 'timed out\nat line 3'),
        spec('[sig-network] Topology works', 'skipped', 'needs zones'),
        spec('[sig-apps] Jobs were not chosen', 'skipped'),
        spec('[sig-apps] Jobs work', 'passed'),
        { ...spec('', 'failed', 'no cluster'), ContainerHierarchyTexts: null, LeafNodeType: 'BeforeSuite' },
        { ...spec('', 'passed'), ContainerHierarchyTexts: null, LeafNodeType: 'AfterSuite' },
      ],
    },
    { SpecReports: null },
  ]
  const { ran, failed, text } = summaryOf(report)
  expect([ran, failed]).toEqual([3, ['[sig-network] Services works: timed out', 'BeforeSuite: no cluster']])
  expect(text.split('\n').slice(0, 3)).toEqual([
    '[sig-network]: 1 passed, 1 failed, 1 skipped',
    '[sig-apps]: 1 passed, 0 failed, 0 skipped',
    'skipped: [sig-network] Topology works: needs zones',
  ])
})
