import { constants } from 'node:fs'
import { copyFile, lstat, mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { privateDirectoryMode, writeFileAtomically } from '../base/files.ts'

/** Copies a directory of keys into a new one, without those that are left out. */
export async function copyKeys(
  from: string,
  to: string,
  { leaveOut = () => false }: { leaveOut?: (name: string) => boolean } = {},
): Promise<void> {
  await mkdir(to, { recursive: true, mode: privateDirectoryMode })
  for (const name of await readdir(from)) {
    const path = join(from, name)
    // Who brings keys of his own may have links to them there.
    const found = await stat(path)
    if (!found.isFile() || leaveOut(name)) continue
    await writeFileAtomically(join(to, name), await readFile(path), {
      mode: found.mode & 0o777,
    })
  }
}

/** Copies what a program works with and nobody keeps; where the file system can share blocks, it does. */
export async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true, mode: privateDirectoryMode })
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)]
    if (entry.isDirectory()) await copyTree(source, target)
    else if (entry.isFile()) await copyFile(source, target, constants.COPYFILE_FICLONE)
  }
}

/** Of all files below a directory. */
export async function treeBytes(dir: string): Promise<number> {
  let bytes = 0
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name)
    bytes += entry.isDirectory() ? await treeBytes(path) : (await lstat(path)).size
  }
  return bytes
}
