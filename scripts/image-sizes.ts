/**
 * Writes the tables of sizes into docs/images.md, from the archives in dist/images (zstd) and dist/images/gzip: what was not packed is a
 * dash.
 *
 *   node scripts/image-sizes.ts VERSION
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'

const page = 'docs/images.md'
const [version] = process.argv.slice(2)
if (version === undefined) {
  console.error('usage: image-sizes.ts VERSION')
  process.exit(2)
}

const arches = ['amd64', 'arm64', 'arm'] as const
const images = [
  ...['', '-flannel', '-cni', '-kubeadm', '-kubeadm-cni'].map((flavour) => ({ name: 'kubelet', flavour })),
  { name: 'kube-proxy', flavour: '' },
]

/** MB as those who publish such images of v1.24.0 name them: compressed by gzip, and extracted. */
const published: Readonly<Record<string, Readonly<Record<string, readonly [number, number]>>>> = {
  amd64: {
    ...{ '': [24.75, 75.46], '-flannel': [29.27, 80.07], '-cni': [42.38, 93.47] },
    ...{ '-kubeadm': [42.94, 94.24], '-kubeadm-cni': [60.57, 112.24] },
  },
  arm64: {
    ...{ '': [23.28, 73.35], '-flannel': [27.42, 77.6], '-cni': [39.45, 89.95] },
    ...{ '-kubeadm': [38.89, 89.58], '-kubeadm-cni': [55.06, 106.17] },
  },
  arm: {
    ...{ '': [22.79, 66.54], '-flannel': [27.04, 70.9], '-cni': [39.29, 83.47] },
    ...{ '-kubeadm': [37.67, 81.99], '-kubeadm-cni': [54.17, 98.92] },
  },
}

interface Sizes {
  /** What a registry has of it. */
  readonly compressed: number
  /** The files in it. */
  readonly extracted: number
  /** Of those, the programs. */
  readonly programs: number
}

function sizesOf(file: string): Sizes | undefined {
  if (!existsSync(file)) return undefined
  const read = (path: string) => execFileSync('tar', ['-xOf', file, path], { maxBuffer: 2 ** 31 - 1 })
  const blob = (digest: string) => read(`blobs/${digest.replace(':', '/')}`)
  const [{ digest, size }] = (
    JSON.parse(read('index.json').toString()) as { manifests: [{ digest: string; size: number }] }
  ).manifests
  const { config, layers } = JSON.parse(blob(digest).toString()) as {
    config: { size: number }
    layers: { digest: string; size: number; mediaType: string }[]
  }
  const compressed = [config, ...layers].reduce((sum, part) => sum + part.size, size)
  let extracted = 0
  let programs = 0
  for (const { digest: of, mediaType } of layers) {
    const layer = mediaType.endsWith('+gzip') ? gunzipSync(blob(of)) : zstdDecompressSync(blob(of))
    for (const line of execFileSync('tar', ['-tvf', '-'], { input: layer, encoding: 'utf8' }).split('\n')) {
      const [, mode = '', bytes = '0', path = ''] = /^(\S+) +\S+ +(\d+) +\S+ +\S+ +(\S+)/.exec(line) ?? []
      if (!mode.startsWith('-')) continue
      extracted += Number(bytes)
      if (/(^|\/)s?bin\//.test(path)) programs += Number(bytes)
    }
  }
  return { compressed, extracted, programs }
}

const megabytes = (bytes: number | undefined) => (bytes === undefined ? '-' : (bytes / 1e6).toFixed(2))
const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
const columns = ['image', 'zstd', 'gzip', 'extracted', 'extracted / programs', 'published, gzip', 'extracted']

const lines: string[] = []
for (const arch of arches) {
  const rows = images.flatMap(({ name, flavour }) => {
    const archive = `${name}-${version}${flavour}-${arch}.tar`
    const [zstd, gzip] = ['dist/images', 'dist/images/gzip'].map((directory) =>
      sizesOf(`${directory}/${archive}`),
    )
    const either = zstd ?? gzip
    if (either === undefined) return []
    const theirs = name === 'kubelet' ? published[arch]?.[flavour] : undefined
    return [
      row([
        `${name}:${version}${flavour}`,
        ...[zstd?.compressed, gzip?.compressed, either.extracted].map(megabytes),
        (either.extracted / either.programs).toFixed(2),
        ...(theirs?.map((size) => size.toFixed(2)) ?? ['', '']),
      ]),
    ]
  })
  if (rows.length === 0) continue
  lines.push(`${arch}:`, '', row(columns), row(['---', ...columns.slice(1).map(() => '---:')]), ...rows, '')
}

const begin = `<!-- sizes of ${version}: written by make image-sizes -->`
const end = '<!-- end of sizes -->'
const text = readFileSync(page, 'utf8')
const from = text.indexOf(begin)
const to = text.indexOf(end, from)
if (from < 0 || to < 0) {
  console.error(`cannot write sizes into ${page}: it lacks the lines "${begin}" and "${end}" behind it`)
  process.exit(1)
}
writeFileSync(page, `${text.slice(0, from + begin.length)}\n\n${lines.join('\n')}\n${text.slice(to)}`)
