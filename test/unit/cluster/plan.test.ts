import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { planRole, roleRow } from '../../../src/cluster/plan.ts'
import type { ComponentContext } from '../../../src/components/component.ts'
import { paths } from '../../../src/config/paths.ts'
import { pkiFiles } from '../../../src/pki/pki.ts'
import { load } from '../config/given.ts'

const page = readFileSync(join(import.meta.dirname, '../../../docs/architecture.md'), 'utf8')

async function plan(mode: 'single' | 'ha') {
  const config = await load({ flags: [`--server-mode=${mode}`] })
  const places = paths(config)
  return planRole(roleRow(mode), {
    config,
    paths: places,
    pki: pkiFiles(places.pkiDir),
    payload: { bin: (name: string) => name, dir: '' },
    environment: {},
    log: silentLogger,
  } as unknown as ComponentContext)
}

test.each<['single' | 'ha', string]>([
  ['single', 'etcd-proxy'],
  ['ha', 'datastore'],
])(
  'docs/architecture.md has the components of a server of mode %s, in the order of their start',
  async (mode, other) => {
    const { components } = await plan(mode)
    const all = page.matchAll(
      /^\| ([a-z-]+) \| (.+) \| (.+) \| .+ \| (degraded|the \S+ ends|it is waited for) \|$/gm,
    )
    const rows = [...all].filter(([, name]) => name !== other)
    const listed = (text = '') => (text === '-' ? [] : text.split(', '))
    expect(
      components.map(({ name, needs, provides, policy }) => ({ name, needs, provides, policy })),
    ).toEqual(
      rows.map(([, name, needs, provides, without]) => ({
        name,
        needs: listed(needs),
        provides: listed(provides),
        policy: without === 'degraded' ? 'degraded' : 'fatal',
      })),
    )
  },
)

test('docs/architecture.md has its tasks', async () => {
  const { tasks } = await plan('single')
  const section = page.slice(page.indexOf('## The tasks'), page.indexOf('## The stop'))
  const named = [...section.matchAll(/(?:^- |[.,] )((?:`[a-z-]+`(?:, )?)+):/gm)].flatMap(([, names = '']) =>
    names.replaceAll('`', '').split(', '),
  )
  expect(named.toSorted()).toEqual(tasks.map(({ name }) => name).toSorted())
})

test('of several servers, none takes snapshots of an etcd that others run', async () => {
  const names = async (mode: 'single' | 'ha') => (await plan(mode)).tasks.map(({ name }) => name)
  expect(new Set(await names('single'))).toEqual(new Set([...(await names('ha')), 'snapshots']))
})
