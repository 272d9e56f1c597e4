/** What ginkgo writes of a run, as far as it is read: types.Report. */
export type Report = readonly { readonly SpecReports: readonly SpecReport[] | null }[]

interface SpecReport {
  readonly ContainerHierarchyTexts: readonly string[] | null
  readonly LeafNodeType: string
  readonly LeafNodeText: string
  readonly State: string
  readonly Failure?: { readonly Message?: string }
}

export interface Summary {
  readonly ran: number
  /** The names of what failed, and the first line of why. */
  readonly failed: readonly string[]
  /** For people: a line for each group, and one for each case that skipped itself. */
  readonly text: string
}

/** Of the cases that were chosen; those that were not have no word on why they were skipped. */
export function summaryOf(report: Report): Summary {
  const groups = new Map<string, { passed: number; failed: number; skipped: number }>()
  const failed: string[] = []
  const skipped: string[] = []
  for (const spec of report.flatMap(({ SpecReports }) => SpecReports ?? [])) {
    const name = [...(spec.ContainerHierarchyTexts ?? []), spec.LeafNodeText].join(' ').trim()
    const why = spec.Failure?.Message?.split('\n')[0] ?? ''
    const isPassed = spec.State === 'passed'
    if (spec.LeafNodeType !== 'It') {
      if (!isPassed && spec.State !== 'skipped') failed.push(`${spec.LeafNodeType}: ${why}`)
      continue
    }
    if (spec.State === 'pending' || (spec.State === 'skipped' && why === '')) continue
    const sig = /\[sig-[a-z-]+\]/.exec(name)?.[0] ?? 'others'
    const group = groups.get(sig) ?? { passed: 0, failed: 0, skipped: 0 }
    groups.set(sig, group)
    if (isPassed) {
      group.passed++
    } else if (spec.State === 'skipped') {
      group.skipped++
      skipped.push(`skipped: ${name}: ${why}`)
    } else {
      group.failed++
      failed.push(`${name}: ${why}`)
    }
  }
  const lines = [...groups].map(
    ([sig, { passed, failed, skipped }]) => `${sig}: ${passed} passed, ${failed} failed, ${skipped} skipped`,
  )
  const ran = [...groups.values()].reduce((sum, { passed, failed }) => sum + passed + failed, 0)
  return { ran, failed, text: [...lines, ...skipped, ...failed.map((text) => `failed: ${text}`)].join('\n') }
}
