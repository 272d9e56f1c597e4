/**
 * Bundles the daemon's programs: each entry becomes one file that needs no other.
 *
 *   node scripts/bundle.ts VERSION_JSON OUTPUT_DIRECTORY
 */
import { existsSync, readFileSync } from 'node:fs'
import { build } from 'esbuild'

const entries = {
  main: 'src/main.ts',
  'datastore-worker': 'src/datastore/worker.ts',
}

const [versionFile, outdir] = process.argv.slice(2)
if (!versionFile || !outdir) {
  console.error('usage: bundle.ts VERSION_JSON OUTPUT_DIRECTORY')
  process.exit(2)
}
const missing = Object.values(entries).filter((entry) => !existsSync(entry))
if (missing.length > 0) {
  console.error(`cannot bundle: ${missing.join(', ')} missing`)
  process.exit(1)
}

await build({
  entryPoints: entries,
  outdir,
  bundle: true,
  platform: 'node',
  target: 'node26',
  format: 'esm',
  legalComments: 'none',
  // For the coverage of tests; the artifact does not have it.
  sourcemap: 'external',
  define: {
    __K8S_VERSION_JSON__: JSON.stringify(readFileSync(versionFile, 'utf8')),
    // In one file every module would be the main one.
    'import.meta.main': 'false',
  },
  // For packages that are CommonJS.
  banner: {
    js: "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);",
  },
  logLevel: 'warning',
})
