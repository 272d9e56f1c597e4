/**
 * Prints the table of what patches save, in MB (10^6): scripts/patch-sizes.sh says where the figures come from. What was not
 * measured is a dash.
 *
 *   node scripts/patch-sizes.ts DIRECTORY PATCH...
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { constants, zstdCompressSync } from 'node:zlib'

const [directory = '', ...patches] = process.argv.slice(2)
const components = ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubelet']
const columns = ['binary', 'zstd -3', ...components]

/** Bytes by column. */
type Figures = Readonly<Record<string, number>>

const steps = ['none', ...patches].map((_, number) => read(number))
console.log(row(['patch', ...columns]))
console.log(row(['---', ...columns.map(() => '---:')]))
for (const [number, patch] of patches.entries()) {
  console.log(row([`\`${basename(patch, '.patch')}\``, ...differences(steps[number], steps[number + 1])]))
}
console.log(row(['all', ...differences(steps.at(0), steps.at(-1))]))
console.log(row(['what is left', ...columns.map((column) => megabytes(steps.at(-1)?.[column]))]))

/** What was measured with the first `number` patches. */
function read(number: number): Figures {
  const [binary, memory] = ['kubernetes', 'memory.json'].map((name) => `${directory}/${number}/${name}`)
  const figures: Record<string, number> = {}
  if (binary !== undefined && existsSync(binary)) {
    const level = { params: { [constants.ZSTD_c_compressionLevel]: 3 } }
    figures['binary'] = statSync(binary).size
    figures['zstd -3'] = zstdCompressSync(readFileSync(binary), level).length
  }
  if (memory !== undefined && existsSync(memory)) {
    Object.assign(figures, JSON.parse(readFileSync(memory, 'utf8')))
  }
  return figures
}

function differences(before: Figures = {}, after: Figures = {}): string[] {
  return columns.map((column) => {
    const [old, new_] = [before[column], after[column]]
    return old === undefined || new_ === undefined ? '-' : megabytes(new_ - old)
  })
}

function megabytes(bytes: number | undefined): string {
  return bytes === undefined ? '-' : (bytes / 1e6).toFixed(2).replace(/^-(0\.00)$/, '$1')
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`
}
