import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { constants, zstdCompressSync } from 'node:zlib'
import { afterAll } from 'vitest'
import { footer, type Section } from '../../../scripts/artifact.ts'
import { tar, type TarEntry } from '../../../src/base/tar.ts'

export const root = new URL('../../../', import.meta.url).pathname

/** nobody: what an ordinary user may do is tried as one, where the tests run as root. */
const ordinaryUser = 65_534

/** A directory that every user can read and that goes with the file's tests. */
export function testDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'k8s-launcher-'))
  afterAll(() => rmSync(directory, { recursive: true, force: true }))
  chmodSync(directory, 0o755)
  return directory
}

/** Builds the launcher as the artifact's is built. */
export function buildLauncher(directory: string): Buffer {
  const path = join(directory, 'launcher')
  execFileSync(join(root, 'scripts/build-component.sh'), ['launcher', path], { stdio: 'pipe' })
  return readFileSync(path)
}

export function file(path: string, content: string | Buffer, mode = 0o755): TarEntry {
  return { path, type: 'file', mode, content: Buffer.from(content) }
}

export function folder(path: string): TarEntry {
  return { path, type: 'directory', mode: 0o755 }
}

/** What node needs of gcc's libraries, where the build puts it. */
export function atomicLibrary(): TarEntry {
  const path = execFileSync('gcc', ['-print-file-name=libatomic.so.1'], { encoding: 'utf8' }).trim()
  return file('lib/libatomic.so.1', readFileSync(path), 0o644)
}

/** A section as the build makes it, compressed lightly. */
export function section(entries: readonly TarEntry[]): Section {
  const unpacked = Buffer.concat(tar(entries))
  const params = { [constants.ZSTD_c_compressionLevel]: 1 }
  return { unpackedBytes: unpacked.length, content: zstdCompressSync(unpacked, { params }) }
}

/** Writes the launcher with these sections behind it; `change` may spoil the whole. */
export function writeArtifact(given: {
  path: string
  launcher: Buffer
  sections: readonly Section[]
  change?: (bytes: Buffer) => void
}): string {
  const { path, launcher, sections, change } = given
  const contents = sections.map(({ content }) => content)
  const bytes = Buffer.concat([launcher, ...contents, footer(sections, launcher.length)])
  change?.(bytes)
  writeFileSync(path, bytes, { mode: 0o755 })
  return path
}

export interface Run {
  readonly path: string
  readonly args?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly asUser?: boolean
  readonly cwd?: string
}

/** Runs an artifact with no environment but what is given, as root or as an ordinary user. */
export function run({ path, args = [], env = {}, asUser = false, cwd = '/' }: Run) {
  const user = asUser && process.geteuid?.() === 0 ? { uid: ordinaryUser, gid: ordinaryUser } : {}
  const { status, stdout, stderr } = spawnSync(path, args, {
    env: { PATH: '/usr/bin:/bin', ...env },
    cwd,
    encoding: 'utf8',
    ...user,
  })
  return { code: status, stdout, stderr }
}
