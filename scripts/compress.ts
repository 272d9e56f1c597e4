/**
 * Compresses with zstd or gzip, as for a release or quickly. What was compressed is kept by the digest of its
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
import { writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Readable, type Duplex } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'

export type Level = 'best' | 'fast'

const zstdOptions: Readonly<Record<Level, string>> = { best: '-19', fast: '-3' }
const gzipOptions: Readonly<Record<Level, string>> = { best: '-9', fast: '-1' }

const keptDirectory = (): string => process.env['SECTIONS_DIR'] ?? 'build/sections'

/** Both levels of what an artifact and a few before it are made of. */
const keptLimit = 32
/** Of images: both compressions of each layer, of three architectures and a few versions. */
const keptLayersLimit = 200

export function isLevel(text: string | undefined): text is Level {
  return text === 'best' || text === 'fast'
}

/**
 * One frame of zstd with the parts behind one another. Several calls run side by side, each on a processor. A decoder keeps
 * 2 ** `windowLog` bytes, or what is usual for the level.
 */
export function compress(parts: readonly Buffer[], level: Level, windowLog?: number): Promise<Buffer> {
  const window = windowLog === undefined ? [] : [`--zstd=wlog=${windowLog}`]
  return compressWith(parts, { ...zstd, options: [zstdOptions[level], ...window], keptDir: keptDirectory() })
}

export type LayerCompression = 'zstd' | 'gzip'

/** A layer of an image. They are kept for themselves, since there are many. */
export function compressLayer(
  parts: readonly Buffer[],
  level: Level,
  compression: LayerCompression,
): Promise<Buffer> {
  const how =
    compression === 'zstd'
      ? { ...zstd, options: [zstdOptions[level]] }
      : { ...gzip, options: ['--no-name', gzipOptions[level]] }
  return compressWith(parts, { ...how, keptDir: keptLayersDirectory() })
}

const keptLayersDirectory = (): string => join(dirname(keptDirectory()), 'layers')

interface Compressor {
  readonly command: readonly [string, ...string[]]
  readonly suffix: string
  readonly unpacker: () => Duplex
}
const zstd: Compressor = {
  command: ['zstd', '-T1', '-q', '-c'],
  suffix: 'zst',
  unpacker: createZstdDecompress,
}
const gzip: Compressor = { command: ['gzip', '-c'], suffix: 'gz', unpacker: createGunzip }

async function compressWith(
  parts: readonly Buffer[],
  {
    command: [program, ...fixed],
    suffix,
    unpacker,
    options,
    keptDir,
  }: Compressor & { readonly options: readonly string[]; readonly keptDir: string },
): Promise<Buffer> {
  mkdirSync(keptDir, { recursive: true })
  const digest = createHash('sha256')
  for (const part of parts) digest.update(part)
  const expected = digest.digest('hex')
  const kept = join(keptDir, `${expected}${options.join('')}.${suffix}`)
  if (existsSync(kept)) {
    const compressed = readFileSync(kept)
    if (await unpacksTo(compressed, expected, unpacker)) {
      // Retention goes by the time of the last use.
      utimesSync(kept, new Date(), new Date())
      return compressed
    }
    console.error(`${kept} is damaged: compressing anew`)
  }
  const unfinished = `${kept}.${process.pid}.tmp`
  const child = spawn(program, [...fixed, ...options], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  for (const part of parts) child.stdin.write(part)
  child.stdin.end()
  await writeFile(unfinished, child.stdout)
  const code = await ended
  if (code !== 0) throw new Error(`cannot compress: ${program} exited with ${code}`)
  renameSync(unfinished, kept)
  return readFileSync(kept)
}

/** A file that was kept for long, or by others, goes into an artifact whose own digests are made of it. */
async function unpacksTo(compressed: Buffer, expected: string, unpacker: () => Duplex): Promise<boolean> {
  const digest = createHash('sha256')
  try {
    for await (const part of Readable.from([compressed]).pipe(unpacker())) digest.update(part)
  } catch {
    return false
  }
  return digest.digest('hex') === expected
}

/** Removes what was not used for longest. */
export const forgetOld = (): void => forget(keptDirectory(), keptLimit)
export const forgetOldLayers = (): void => forget(keptLayersDirectory(), keptLayersLimit)

function forget(keptDir: string, limit: number): void {
  const files = readdirSync(keptDir).map((name) => join(keptDir, name))
  const newestFirst = files.toSorted((a, b) => usedAt(b) - usedAt(a))
  for (const old of newestFirst.slice(limit)) rmSync(old, { force: true })
}

/** Another build may have removed it by now. */
const usedAt = (file: string): number => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0
