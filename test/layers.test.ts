import { existsSync, globSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { components, owners, reserved, rooms, violations } from './layers.ts'

const root = new URL('..', import.meta.url).pathname
const sources = globSync('**/*.ts', { cwd: `${root}/src` }).sort()

describe('the rooms', () => {
  test.each(sources)('src/%s imports only what its room may', (file) => {
    expect(violations({ file, text: readFileSync(`${root}/src/${file}`, 'utf8') })).toEqual([])
  })

  test('name only rooms, files and owners that exist', () => {
    for (const allowed of Object.values(rooms)) {
      for (const room of allowed) expect(Object.keys(rooms)).toContain(room)
    }
    const named = [
      ...Object.keys(rooms),
      ...owners.map(({ owner }) => owner),
      ...reserved.flatMap(({ files }) => files),
    ]
    expect(named.filter((path) => !existsSync(`${root}/src/${path}`))).toEqual([])
  })
})

test('docs/architecture.md has the same rooms', () => {
  const page = readFileSync(`${root}/docs/architecture.md`, 'utf8')
  const table = page.slice(page.indexOf('| room |'), page.indexOf('\n\n', page.indexOf('| room |')))
  const rows = [...table.matchAll(/^\| `(.+?)` \| .+ \| (.+) \|$/gm)]
  expect(Object.fromEntries(rows.map(([, room, allowed]) => [room, allowed]))).toEqual(
    Object.fromEntries(
      Object.entries(rooms).map(([room, allowed]) => [room, allowed.join(', ') || 'nothing of ours']),
    ),
  )
})

test('the components are those that the table of roles has', () => {
  // etcd is one kind of storage.
  const plan = ['cluster/plan.ts', 'cluster/kubelet/plan.ts', 'storage/etcd-member.ts'].map((file) =>
    readFileSync(`${root}/src/${file}`, 'utf8'),
  )
  const imported = [...plan.join('').matchAll(/^import \{.*\} from '(?:\.\.\/)+(components\/.+)'$/gm)].map(
    ([, file = '']) => file,
  )
  const expected = new Set(imported.filter((file) => file !== 'components/process-component.ts'))
  expect([...expected].sort()).toEqual(components)
})

describe('a violation', () => {
  test.each([
    {
      file: 'pki/authority.ts',
      text: "import { paths } from '../config/paths.ts'",
      message: 'src/pki/authority.ts imports src/config/paths.ts: pki may import only base',
    },
    {
      file: 'base/errors.ts',
      text: "export type {\n  Config,\n} from '../config/config.ts'",
      message: 'src/base/errors.ts imports src/config/config.ts: base may import no other room',
    },
    {
      file: 'cluster/run.ts',
      text: "const { spawn } = await import('node:child_process')",
      message: 'src/cluster/run.ts imports node:child_process, which only src/supervisor/spawn.ts may',
    },
    {
      file: 'datastore/mvcc/hub.ts',
      text: "import Database from 'better-sqlite3'",
      message: 'src/datastore/mvcc/hub.ts imports better-sqlite3, which only src/datastore/log may',
    },
    {
      file: 'components/kubelet.ts',
      text: "import { apiserver } from './apiserver.ts'",
      message:
        'src/components/kubelet.ts imports src/components/apiserver.ts: a component never imports another component',
    },
    {
      file: 'components/kubelet.ts',
      text: "const worker = new URL('../datastore/worker.ts', import.meta.url)",
      message:
        'src/components/kubelet.ts imports src/datastore/worker.ts: components may import only api, supervisor, pki, node, payload, config, base',
    },
    {
      file: 'supervisor/state.ts',
      text: "await writeFile(path, 'x')",
      message:
        'src/supervisor/state.ts has writeFile(: files are written with writeFileAtomically of base/files.ts',
    },
    {
      file: 'cli/server.ts',
      text: "import { runCluster } from '../cluster/run.ts'",
      message:
        'src/cli/server.ts imports src/cluster/run.ts before its command runs: use import() in the handler',
    },
    {
      file: 'supervisor/state.ts',
      text: 'process.exit(1)',
      message: 'src/supervisor/state.ts calls process.exit, which only cli may: throw an AppError instead',
    },
    {
      file: 'utils.ts',
      text: '',
      message: `src/utils.ts is in no room; the rooms are ${Object.keys(rooms).join(', ')}`,
    },
  ])('of $file is reported', ({ file, text, message }) => {
    expect(violations({ file, text })).toEqual([message])
  })

  test.each([
    { file: 'storage/embedded.ts', text: "import { startDatastore } from '../datastore/datastore.ts'" },
    { file: 'components/kubelet.ts', text: "import type { Component } from './component.ts'" },
    { file: 'cli/server.ts', text: "const { runCluster } = await import('../cluster/run.ts')" },
    { file: 'supervisor/spawn.ts', text: "import { spawn } from 'node:child_process'" },
  ])('is not: $file, $text', ({ file, text }) => {
    expect(violations({ file, text })).toEqual([])
  })
})

test('.oxlintrc.json bans the same libraries', () => {
  const { overrides } = JSON.parse(readFileSync(`${root}/.oxlintrc.json`, 'utf8')) as {
    overrides: { files: string[]; rules: Record<string, unknown> }[]
  }
  const rule = (owner?: string) => [
    'error',
    {
      paths: owners
        .filter((owned) => owned.owner !== owner)
        .flatMap((owned) =>
          owned.libraries.map((name) => ({ name, message: `Only src/${owned.owner} may import it.` })),
        ),
    },
  ]
  const expected = [
    { files: ['src/**'], rule: rule() },
    ...owners.map(({ owner }) => ({
      files: [owner.endsWith('.ts') ? `src/${owner}` : `src/${owner}/**`],
      rule: rule(owner),
    })),
  ]
  const actual = overrides
    .filter(({ rules }) => 'no-restricted-imports' in rules)
    .map(({ files, rules }) => ({ files, rule: rules['no-restricted-imports'] }))
  expect(actual).toEqual(expected)
})
