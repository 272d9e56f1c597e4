/**
 * Packs build/payload behind the launcher into one file: components/launcher/launcher.h has the picture.
 *
 *   node scripts/pack.ts LAUNCHER PAYLOAD OUTPUT best|fast
 *
 * Sections are compressed side by side here, and unpacked side by side by the launcher.
 */
import { chmodSync, closeSync, openSync, readFileSync, renameSync, statSync, writeSync } from 'node:fs'
import { footer, type Section } from './artifact.ts'
import { compress, forgetOld, isLevel, type Level } from './compress.ts'
import { entriesBelow } from './tree.ts'
import { tar, type TarEntry } from '../src/base/tar.ts'

/**
 * The first two are what runs before anything is unpacked (launcher.c). Apart from that: what changes often is compressed
 * alone, and the large ones come first, so that two processors unpack for about as long.
 */
const sectionRoots: readonly (readonly string[])[] = [
  ['lib'],
  ['bin/node'],
  ['bin/kubernetes'],
  ['bin/containerd'],
  ['bin', 'images'],
]

function sectionOf(path: string): number {
  const index = sectionRoots.findIndex((roots) =>
    roots.some((root) => path === root || path.startsWith(`${root}/`)),
  )
  if (index < 0) throw new Error(`cannot pack ${path}: no section takes it`)
  return index
}

/** Each section starts with all directories, as sections are unpacked in no order. */
function divide(entries: readonly TarEntry[]): TarEntry[][] {
  const directories = entries.filter((entry) => entry.type === 'directory')
  const others = entries.filter((entry) => entry.type !== 'directory')
  return sectionRoots.map((_, index) => [
    ...directories,
    ...others.filter((entry) => sectionOf(entry.path) === index),
  ])
}

async function section(entries: readonly TarEntry[], level: Level): Promise<Section> {
  const parts = tar(entries)
  const unpackedBytes = parts.reduce((sum, part) => sum + part.length, 0)
  return { unpackedBytes, content: await compress(parts, level) }
}

const [launcherPath, payload, output, level] = process.argv.slice(2)
if (!launcherPath || !payload || !output || !isLevel(level)) {
  console.error('usage: pack.ts LAUNCHER PAYLOAD OUTPUT best|fast')
  process.exit(2)
}

const launcher = readFileSync(launcherPath)
const divided = divide(entriesBelow(payload))
const sections = await Promise.all(divided.map((entries) => section(entries, level)))

const file = openSync(`${output}.tmp`, 'w')
for (const part of [
  launcher,
  ...sections.map((section) => section.content),
  footer(sections, launcher.length),
]) {
  writeSync(file, part)
}
closeSync(file)
chmodSync(`${output}.tmp`, 0o755)
renameSync(`${output}.tmp`, output)
forgetOld()
console.log(`${output}: ${(statSync(output).size / 1e6).toFixed(1)} MB`)
