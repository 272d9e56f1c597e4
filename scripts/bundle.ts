/**
 * Bundles the daemon's programs: each entry becomes one file that needs no other.
 *
 *   node scripts/bundle.ts VERSION_JSON OUTPUT_DIRECTORY
 */
import { existsSync, readFileSync } from 'node:fs'
import { build, type BuildOptions } from 'esbuild'

const entries = {
  main: 'src/main.ts',
  'datastore-worker': 'src/datastore/worker.ts',
}
/** @kubernetes/client-node has an API of five megabytes. */
const minified = { client: 'src/client/client.ts' }

const [versionFile, outdir] = process.argv.slice(2)
if (!versionFile || !outdir) {
  console.error('usage: bundle.ts VERSION_JSON OUTPUT_DIRECTORY')
  process.exit(2)
}
const missing = Object.values({ ...entries, ...minified }).filter((entry) => !existsSync(entry))
if (missing.length > 0) {
  console.error(`cannot bundle: ${missing.join(', ')} missing`)
  process.exit(1)
}

const options = {
  outdir,
  bundle: true,
  platform: 'node',
  target: 'node26',
  // As ES modules they would have each thread load what Node's own modules export lazily (undici, by node:http): 40 ms of
  // a processor more for each, of the 130 that `k8s --version` took.
  format: 'cjs',
  legalComments: 'none',
  // For the coverage of tests; the artifact does not have it.
  sourcemap: 'external',
  define: {
    __K8S_VERSION_JSON__: JSON.stringify(readFileSync(versionFile, 'utf8')),
    // In one file every module would be the main one.
    'import.meta.main': 'false',
    'import.meta.dirname': '__dirname',
    'import.meta.url': 'bundleUrl',
  },
  banner: { js: "const bundleUrl = require('node:url').pathToFileURL(__filename).href;" },
  logLevel: 'warning',
} as const satisfies BuildOptions

await build({ ...options, entryPoints: entries })
await build({ ...options, entryPoints: minified, minify: true })
