/**
 * Compresses for the artifact with zstd, as for a release or quickly. What was compressed is kept by the digest of its
 * content, under build/sections or in $SECTIONS_DIR, which several checkouts may share: a change of the daemon alone does not
 * compress 450 MB again.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { createZstdDecompress } from 'node:zlib'

export type Level = 'best' | 'fast'

const zstdOptions: Readonly<Record<Level, string>> = { best: '-19', fast: '-3' }

const keptDirectory = (): string => process.env['SECTIONS_DIR'] ?? 'build/sections'

/** Both levels of what an artifact and a few before it are made of. */
const keptLimit = 32

export function isLevel(text: string | undefined): text is Level {
  return text === 'best' || text === 'fast'
}

/**
 * One frame of zstd with the parts behind one another. Several calls run side by side, each on a processor. A decoder keeps
 * 2 ** `windowLog` bytes, or what is usual for the level.
 */
export async function compress(parts: readonly Buffer[], level: Level, windowLog?: number): Promise<Buffer> {
  const keptDir = keptDirectory()
  mkdirSync(keptDir, { recursive: true })
  const options = [zstdOptions[level], ...(windowLog === undefined ? [] : [`--zstd=wlog=${windowLog}`])]
  const digest = createHash('sha256')
  for (const part of parts) digest.update(part)
  const expected = digest.digest('hex')
  const kept = join(keptDir, `${expected}${options.join('')}.zst`)
  if (existsSync(kept)) {
    const compressed = readFileSync(kept)
    if (await unpacksTo(compressed, expected)) {
      // Retention goes by the time of the last use.
      utimesSync(kept, new Date(), new Date())
      return compressed
    }
    console.error(`${kept} is damaged: compressing anew`)
  }
  const unfinished = `${kept}.${process.pid}.tmp`
  const zstd = spawn('zstd', [...options, '-T1', '-q', '-f', '-o', unfinished], {
    stdio: ['pipe', 'inherit', 'inherit'],
  })
  for (const part of parts) zstd.stdin.write(part)
  zstd.stdin.end()
  const code = await new Promise<number | null>((resolve) => zstd.on('close', resolve))
  if (code !== 0) throw new Error(`cannot compress: zstd exited with ${code}`)
  renameSync(unfinished, kept)
  return readFileSync(kept)
}

/** A file that was kept for long, or by others, goes into an artifact whose own digests are made of it. */
async function unpacksTo(compressed: Buffer, expected: string): Promise<boolean> {
  const digest = createHash('sha256')
  try {
    for await (const part of Readable.from([compressed]).pipe(createZstdDecompress())) digest.update(part)
  } catch {
    return false
  }
  return digest.digest('hex') === expected
}

/** Removes what was not used for longest. */
export function forgetOld(): void {
  const keptDir = keptDirectory()
  const files = readdirSync(keptDir).map((name) => join(keptDir, name))
  const newestFirst = files.toSorted((a, b) => usedAt(b) - usedAt(a))
  for (const old of newestFirst.slice(keptLimit)) rmSync(old, { force: true })
}

/** Another build may have removed it by now. */
const usedAt = (file: string): number => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0
