import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { replay } from './replay.ts'

/**
 * A day of a busy cluster, replayed fast: the file must stay within twice the size of the rows that are kept, and the
 * WAL under 64 MB. Exits with 1 when it does not.
 *
 *   node bench/datastore/replay-day.ts [--nodes=1000] [--hours=24]
 */
const { values } = parseArgs({
  options: {
    nodes: { type: 'string', default: '1000' },
    hours: { type: 'string', default: '24' },
  },
})
const directory = mkdtempSync(join(process.env['BENCH_DIR'] ?? '/var/tmp', 'k8s-replay-'))
try {
  const result = await replay({
    path: join(directory, 'state.db'),
    nodes: Number(values.nodes),
    hours: Number(values.hours),
    progress: (line) => console.log(line),
  })
  const rate = Math.round(result.writes / result.seconds)
  console.log(`${result.writes} writes in ${result.seconds.toFixed(0)} s, ${rate}/s`)
  console.log(
    `file ${result.lastFileBytes} bytes for ${result.lastRowBytes} bytes of rows; at worst ${result.worstRatio.toFixed(2)} times`,
  )
  console.log(`longest WAL ${result.longestWalBytes} bytes`)
  if (result.worstRatio > 2 || result.longestWalBytes > 64e6) process.exitCode = 1
} finally {
  rmSync(directory, { recursive: true })
}
