import { globSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { commands } from '../../src/cli/main.ts'
import { criDockerdSocket, paths } from '../../src/config/paths.ts'
import { datagramPorts, ports } from '../../src/config/ports.ts'
import { everyRole, presentRoles, type RoleName, roles } from '../../src/config/roles.ts'
import { schema, type SettingName } from '../../src/config/schema.ts'
import { disableable } from '../../src/config/settings/server.ts'
import { defaultConfigFile } from '../../src/config/table/file.ts'
import { environmentName } from '../../src/config/table/option.ts'
import { dataEntries } from '../../src/node/reset/plan.ts'

const root = new URL('../../', import.meta.url).pathname

interface Row {
  readonly name: string
  readonly roles: string
  readonly what: string
}

/** The tables of docs/names.md by their headings. */
const tables: Readonly<Record<string, readonly Row[]>> = Object.fromEntries(
  readFileSync(`${root}docs/names.md`, 'utf8')
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const rows = [...section.matchAll(/^\| `([^`]+)` \| ([^|]+) \| (.+) \|$/gm)]
      return [
        section.slice(0, section.indexOf('\n')),
        rows.map(([, name = '', of = '', what = '']) => ({ name, roles: of, what })),
      ]
    }),
)

const namesOf = (heading: string) => (tables[heading] ?? []).map(({ name }) => name)
const rolesText = (names: readonly RoleName[]) => presentRoles(names).join(', ')
const isSetting = (name: string): name is SettingName => Object.hasOwn(schema, name)

/** Each command's own flags, with the commands that have them. */
const ownFlags = new Map<string, { commands: string[]; meanings: Set<string> }>()
for (const { name: command, options } of commands.all) {
  for (const [name, { description, kind }] of Object.entries(options)) {
    // The setting of that name, of another machine.
    if (command === 'token create' && name === 'role') continue
    const flag = ownFlags.get(name) ?? { commands: [], meanings: new Set() }
    flag.commands.push(command)
    flag.meanings.add(`${kind.placeholder}: ${description}`)
    ownFlags.set(name, flag)
  }
}

const everyDaemonCommand = 'every command but version and those of lab'

/** Ansible's, in a comment; and what containerd's CRI calls its arguments of CNI. */
const ofOthers = ['K8S_AUTH_HOST', 'K8S_POD_NAME', 'K8S_POD_NAMESPACE', 'K8S_POD_UID']

/** Every K8S_ name in what is written here for the program, but for those of settings. */
function variablesInSources(): string[] {
  const files = globSync(['src/**/*.ts', 'components/launcher/*.{c,h}', 'systemd/*'], { cwd: root })
  const found = files.flatMap((file) =>
    [...readFileSync(`${root}${file}`, 'utf8').matchAll(/\bK8S_[A-Z][A-Z_]*[A-Z]\b/g)].map(([name]) => name),
  )
  const ofSettings = Object.keys(schema).map(environmentName)
  return [...new Set(found)].filter((name) => !ofSettings.includes(name) && !ofOthers.includes(name))
}

function directoriesInCode(): string[] {
  const dataDir = '/data'
  const own = Object.values(paths({ dataDir })).filter((path) => path !== dataDir)
  return [
    ...new Set([...own.map((path) => path.slice(dataDir.length + 1)), ...dataEntries]),
    ...[defaultConfigFile, '/etc/k8s/k8s.env', '/run/k8s', criDockerdSocket],
    ...[schema['data-dir'].default, schema['kubelet-root-dir'].default].map(String),
  ]
}

function portOf(address: unknown): string[] {
  return address instanceof Object && 'port' in address ? [String(address.port)] : []
}

describe('docs/names.md has the names of the code, and no other', () => {
  test.each<[string, readonly string[]]>([
    ['Commands', [...commands.all.map(({ name }) => name), ...commands.external]],
    ['Settings', Object.keys(schema)],
    ['Flags of commands', [...[...ownFlags.keys()].filter((name) => !isSetting(name)), 'help', 'version']],
    [
      'Ports',
      [
        ...new Set([
          ...[...Object.values(ports), ...Object.values(datagramPorts)].map(({ number }) => String(number)),
          String(schema['https-listen-port'].default),
          ...portOf(schema['listen-address'].default),
        ]),
      ],
    ],
    ['Variables that are no settings', variablesInSources()],
    ['Values of role', schema.role.kind.choices ?? []],
    ['Values of disable', disableable],
    ['Directories and files', directoriesInCode()],
  ])('%s', (heading, names) => {
    expect(namesOf(heading).toSorted()).toEqual([...names].toSorted())
  })

  test('under these headings', () => {
    expect(Object.keys(tables)).toEqual([
      'Commands',
      'Settings',
      'Flags of commands',
      'Ports',
      'Variables that are no settings',
      'Values of role',
      'Values of disable',
      'Directories and files',
      'In the kernel',
      'Reserved',
    ])
  })
})

describe('with the roles that they are for', () => {
  test.each(Object.entries(schema))('the setting %s', (name, row) => {
    expect(tables['Settings']?.find((entry) => entry.name === name)?.roles).toBe(rolesText(row.roles))
  })

  test.each([...Object.values(ports), ...Object.values(datagramPorts)])(
    'the port $number',
    ({ number, roles: names }) => {
      const listed = tables['Ports']?.find(({ name }) => name === String(number))?.roles.split(', ') ?? []
      // etcd's is that of a datastore, too.
      const others = portOf(schema['listen-address'].default).includes(String(number))
        ? presentRoles(schema['listen-address'].roles)
        : []
      expect(listed.toSorted()).toEqual([...new Set([...presentRoles(names), ...others])].toSorted())
    },
  )

  test('everything else, in words that are roles', () => {
    const known = ['every role', 'every command', everyDaemonCommand]
    const settings = everyRole.map((name) => roles[name].setting as string)
    const names = commands.all.map(({ name }) => name)
    for (const row of Object.values(tables).flat()) {
      const isKnown =
        known.includes(row.roles) ||
        row.roles.split(', ').every((word) => settings.includes(word) || names.includes(word))
      expect(isKnown, `${row.name}: ${row.roles}`).toBe(true)
    }
  })

  test("a command's flags, with the commands that have them", () => {
    for (const { name, roles: of } of tables['Flags of commands'] ?? []) {
      const all = commands.all.filter(
        (command) => command.name !== 'version' && !command.name.startsWith('lab '),
      )
      const owners = ownFlags.get(name)?.commands ?? []
      const expected = owners.length === all.length ? everyDaemonCommand : owners.join(', ')
      expect(of, name).toBe(owners.length === 0 ? 'every command' : expected)
    }
  })
})

describe('no name has two meanings', () => {
  test.each([...ownFlags])('--%s', (_, { meanings }) => {
    expect([...meanings]).toHaveLength(1)
  })

  test('in one table', () => {
    for (const [heading, rows] of Object.entries(tables)) {
      const names = rows.map(({ name }) => name)
      expect(names.toSorted(), heading).toEqual([...new Set(names)].toSorted())
    }
  })

  test('that is reserved', () => {
    for (const { name: flag, roles: of } of tables['Reserved'] ?? []) {
      const [name = '', value] = flag.replace(/^--/, '').split('=')
      if (value !== undefined) {
        const { choices = [] } = schema[name as SettingName].kind
        expect(choices, flag).not.toContain(value)
        expect(commands.all.map((command) => command.name)).not.toContain(value)
        continue
      }
      // A name that one role has may be kept for others.
      const taken = isSetting(name) ? presentRoles(schema[name].roles) : []
      for (const role of of.split(', ')) expect(taken, `${flag} for ${role}`).not.toContain(role)
      expect(isSetting(name) || !ownFlags.has(name), flag).toBe(true)
    }
  })
})
