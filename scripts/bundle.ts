/**
 * Bundles the daemon's programs: each entry becomes one CommonJS file, as Node runs it from memory too, where it has no name and
 * no directory (see components/launcher/launcher.c).
 *
 *   node scripts/bundle.ts OUTPUT_DIRECTORY
 */
import { existsSync } from 'node:fs'
import { build, type Plugin } from 'esbuild'

const entries = {
  main: 'src/main.ts',
  'datastore-worker': 'src/datastore/worker.ts',
  'addons-worker': 'src/addons/worker.ts',
}

/** better-sqlite3 searches its package for the addon; in the payload it lies beside the bundles. */
const sqliteAddon: Plugin = {
  name: 'sqlite-addon',
  setup(pluginBuild) {
    pluginBuild.onLoad({ filter: /better-sqlite3\/lib\/binding\.js$/ }, () => ({
      contents: `
        const { join, resolve } = require('node:path')
        exports.getBinding = (named) => {
          if (named !== null && typeof named === 'object') return named
          return require(resolve(named ?? join(__dirname, 'better_sqlite3.node')))
        }`,
    }))
  },
}

const [outdir] = process.argv.slice(2)
if (!outdir) {
  console.error('usage: bundle.ts OUTPUT_DIRECTORY')
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
  format: 'cjs',
  legalComments: 'none',
  define: { 'import.meta.url': 'bundleUrl' },
  banner: { js: "const bundleUrl = require('node:url').pathToFileURL(__filename).href;" },
  plugins: [sqliteAddon],
  logLevel: 'warning',
})
