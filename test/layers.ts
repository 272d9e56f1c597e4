/**
 * The rooms of the house (docs/architecture.md): which part of src/ may import which, and which
 * libraries one part has to itself. test/layers.test.ts holds every source file to it.
 */
import { globSync, readFileSync } from 'node:fs'

const inComponents = ['supervisor', 'pki', 'node', 'payload', 'config', 'base']
// control: status and stop talk to the daemon. node: check and reset work without a cluster.
// payload: the server opens it, and version prints what is in it.
const inCommands = ['cluster', 'cluster/join', 'control', 'node', 'payload', 'config', 'base']

/** A room is the longest of these paths below src/ that a file's path starts with. */
export const rooms: Readonly<Record<string, readonly string[]>> = {
  base: [],
  config: ['base'],
  pki: ['base'],
  supervisor: ['base'],
  payload: ['base'],
  control: ['base'],
  // A bundle of its own, of which the commands load what they need when they run.
  client: ['base'],
  // The daemon's own client of API servers; that of the commands is above.
  api: ['base'],
  addons: ['api', 'base'],
  node: ['config', 'base'],
  network: ['node', 'config', 'api', 'base'],
  'datastore/log': ['base'],
  'datastore/mvcc': ['datastore/log', 'base'],
  'datastore/grpc': ['datastore/mvcc', 'base'],
  snapshot: ['datastore/log', 'pki', 'config', 'base'],
  'datastore/etcd-file': ['datastore/log', 'supervisor', 'base'],
  'datastore/transfer': ['datastore/etcd-file', 'datastore/log', 'base'],
  // The files beside those folders put them together: the worker, and what starts it.
  datastore: ['datastore/log', 'datastore/mvcc', 'datastore/grpc', 'datastore/etcd-file', 'base'],
  components: ['api', ...inComponents],
  lab: ['supervisor', 'base'],
  balancer: ['components', 'supervisor', 'config', 'api', 'base'],
  storage: ['components', 'datastore', ...inComponents],
  // Moves a cluster from one storage to another, while no daemon runs.
  migration: [
    'storage',
    'snapshot',
    'datastore',
    'datastore/transfer',
    'datastore/etcd-file',
    'datastore/log',
    ...inComponents,
    'components',
  ],
  // What a machine that joins and a server have in common.
  'cluster/join': ['addons', 'pki', 'node', 'config', 'api', 'base'],
  cluster: [
    'cluster/join',
    'components',
    'balancer',
    'storage',
    'supervisor',
    'snapshot',
    'pki',
    'node',
    'network',
    'control',
    'addons',
    'payload',
    'config',
    'api',
    'base',
  ],
  // The role of a datastore alone.
  'cluster/run-datastore.ts': [
    'cluster',
    'supervisor',
    'datastore',
    'snapshot',
    'control',
    'payload',
    'config',
    'base',
  ],
  cli: [
    'cli/datastore.ts',
    'cli/db',
    'cli/etcd',
    'cli/snapshot',
    'cli/lab',
    'cli/pod',
    'cli/secrets-encryption',
    'client',
    'migration',
    'snapshot',
    ...inCommands,
  ],
  // The commands that work on the database itself.
  'cli/db': ['cli', 'snapshot', 'datastore', 'datastore/transfer', 'datastore/log', 'pki', ...inCommands],
  'cli/etcd': ['cli', 'datastore', 'pki', ...inCommands],
  'cli/snapshot': ['cli', 'snapshot', 'datastore', 'datastore/transfer', ...inCommands],
  'cli/secrets-encryption': ['cli', 'client', 'datastore', 'pki', ...inCommands],
  'cli/lab': ['cli', 'lab', ...inCommands],
  'cli/pod': ['cli', 'client', 'pki', ...inCommands],
  'cli/datastore.ts': ['cli', 'cluster/run-datastore.ts', 'datastore', ...inCommands],
  'main.ts': ['cli'],
}

const sourceDir = new URL('../src/', import.meta.url).pathname

/** The files below src/ of components, which know their lifecycle, never each other: those that yield a recipe. */
export const components: readonly string[] = globSync('components/*.ts', { cwd: sourceDir })
  .filter((file) => /^export function .*: ProcessRecipe\b/m.test(readFileSync(sourceDir + file, 'utf8')))
  .sort()

/** Each library with the paths below src/ that alone may import it. */
export const owners: readonly { libraries: readonly string[]; owner: string }[] = [
  { libraries: ['node:child_process', 'child_process', 'execa'], owner: 'supervisor/spawn.ts' },
  { libraries: ['better-sqlite3', 'node:sqlite'], owner: 'datastore/log' },
  { libraries: ['@grpc/grpc-js', 'node:http2', 'http2'], owner: 'datastore/grpc' },
  { libraries: ['yargs', 'yargs/helpers', 'yargs-parser'], owner: 'cli' },
  { libraries: ['pino'], owner: 'base' },
  { libraries: ['@kubernetes/client-node'], owner: 'client' },
]

/** What only these files may contain, since there is one of each; the others use what they export. */
export const reserved: readonly { pattern: RegExp; files: readonly string[]; instead: string }[] = [
  {
    pattern: /\bwriteFile(Sync)?\(/,
    // The others write what the kernel shows as files.
    files: ['base/files.ts', 'base/oom-score.ts', 'node/render/sysctls.ts'],
    instead: 'files are written with writeFileAtomically of base/files.ts',
  },
  {
    pattern: /\b0o[67]00\b/,
    files: ['base/files.ts'],
    instead: 'private modes are those of base/files.ts',
  },
  {
    pattern: /'node:https'|\bhttp\.request\(/,
    // The metrics are a server.
    files: ['base/http.ts', 'datastore/metrics/metrics-server.ts'],
    instead: 'the HTTP client is that of base/http.ts',
  },
]

/** What is wrong with the imports of `file` (a path below src/), one sentence each. */
export function violations({ file, text }: { file: string; text: string }): string[] {
  const room = roomOf(file)
  if (room === undefined) return [`src/${file} is in no room; the rooms are ${Object.keys(rooms).join(', ')}`]
  const found = importsOf(text).flatMap((specifier) => importViolations({ file, room, specifier }))
  for (const { pattern, files, instead } of reserved) {
    const used = pattern.exec(text)?.[0]
    if (used !== undefined && !files.includes(file)) found.push(`src/${file} has ${used}: ${instead}`)
  }
  if (/\bprocess\.(exit|reallyExit)\(/.test(text) && !isInside(file, 'cli')) {
    found.push(`src/${file} calls process.exit, which only cli may: throw an AppError instead`)
  }
  return [...found, ...earlyImports(file, text)]
}

/** Every command pays for what the others import before one of them runs. */
function earlyImports(file: string, text: string): string[] {
  if (!isInside(file, 'cli')) return []
  const early = [...text.matchAll(/^import (?!type\b)[^'"]*?\bfrom '(\.[^']+)'/gm)].map(([, path = '']) =>
    resolved(file, path),
  )
  return early
    .filter((target) => !['cli', 'config', 'base'].some((room) => isInside(target, room)))
    .map((target) => `src/${file} imports src/${target} before its command runs: use import() in the handler`)
}

/** What a relative import names, as a path below src/. */
function resolved(file: string, specifier: string): string {
  return new URL(specifier, `file:///${file}`).pathname.slice(1)
}

function importViolations(use: { file: string; room: string; specifier: string }): string[] {
  const { file, room, specifier } = use
  if (!specifier.startsWith('.')) {
    const owned = owners.find(({ libraries }) => libraries.includes(specifier))
    if (owned === undefined || isInside(file, owned.owner)) return []
    return [`src/${file} imports ${specifier}, which only src/${owned.owner} may`]
  }
  const target = resolved(file, specifier)
  const targetRoom = roomOf(target)
  if (targetRoom === undefined) return [`src/${file} imports ${specifier}, which is in no room`]
  if (components.includes(file) && components.includes(target) && file !== target) {
    return [`src/${file} imports src/${target}: a component never imports another component`]
  }
  const allowed = rooms[room] ?? []
  if (targetRoom === room || allowed.includes(targetRoom)) return []
  return [
    `src/${file} imports src/${target}: ${room} may import ${allowed.length === 0 ? 'no other room' : `only ${allowed.join(', ')}`}`,
  ]
}

export function roomOf(file: string): string | undefined {
  return Object.keys(rooms)
    .filter((room) => isInside(file, room))
    .sort((a, b) => b.length - a.length)[0]
}

function isInside(file: string, path: string): boolean {
  return file === path || file.startsWith(`${path}/`)
}

/** What `import`, `export from`, `import()` and `new URL(..., import.meta.url)` name. */
function importsOf(text: string): string[] {
  const patterns = [
    /^\s*(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]/gm,
    /^\s*import\s*['"]([^'"]+)['"]/gm,
    /\bimport\(\s*['"]([^'"]+)['"]/g,
    /\bnew URL\(\s*['"](\.[^'"]+\.ts)['"],\s*import\.meta\.url/g,
  ]
  return patterns.flatMap((pattern) => [...text.matchAll(pattern)].map((match) => match[1] ?? ''))
}
