/** Directories as entries of an archive. */
import { readFileSync, readdirSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { TarEntry } from '../src/base/tar.ts'

/** What is below a directory, in one order, with one mode for programs and one for other files. Marks of the build, which start with a dot, stay out. */
export function entriesBelow(root: string, path = ''): TarEntry[] {
  const names = readdirSync(join(root, path), { withFileTypes: true }).toSorted((a, b) =>
    a.name < b.name ? -1 : 1,
  )
  return names.flatMap((entry): TarEntry[] => {
    const child = path === '' ? entry.name : `${path}/${entry.name}`
    if (entry.isSymbolicLink()) {
      return [{ path: child, type: 'symlink', target: readlinkSync(join(root, child)) }]
    }
    if (entry.isDirectory()) {
      return [{ path: child, type: 'directory', mode: 0o755 }, ...entriesBelow(root, child)]
    }
    if (!entry.isFile() || entry.name.startsWith('.')) return []
    const file = join(root, child)
    const mode = statSync(file).mode & 0o111 ? 0o755 : 0o644
    return [{ path: child, type: 'file', mode, content: readFileSync(file) }]
  })
}
