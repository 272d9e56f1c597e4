/**
 * Bundles the storage suite's server and the datastore's worker beside it.
 *
 *   node bundle.ts OUTPUT_DIRECTORY
 */
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const here = dirname(fileURLToPath(import.meta.url))
const root = dirname(dirname(dirname(here)))
const [outdir] = process.argv.slice(2)
if (outdir === undefined) throw new Error('usage: bundle.ts OUTPUT_DIRECTORY')

await build({
  entryPoints: {
    serve: join(here, 'serve.ts'),
    'datastore-worker': join(root, 'src/datastore/worker.ts'),
  },
  outdir,
  bundle: true,
  platform: 'node',
  target: 'node26',
  format: 'esm',
  define: {
    SQLITE_ADDON: JSON.stringify(join(root, 'node_modules/better-sqlite3/prebuilds/linux-x64.node')),
  },
  banner: {
    js: "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);",
  },
  logLevel: 'warning',
})
