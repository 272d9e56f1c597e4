import { defineConfig } from 'vitest/config'

const minute = 60_000

/** Where V8 writes what is run (`make test`, `make coverage`); vitest's cache of compiled code would blur it. */
const coverageDirectory = process.env['TEST_COVERAGE_DIR']
const coverage =
  coverageDirectory === undefined
    ? {}
    : { env: { NODE_V8_COVERAGE: coverageDirectory, NODE_DISABLE_COMPILE_CACHE: '1' } }
/** Node's own loader blanks the types, so that what V8 counts is where the sources have it. */
const fromSources =
  coverageDirectory === undefined
    ? {}
    : { ...coverage, setupFiles: ['test/coverage/setup.ts'], experimental: { viteModuleRunner: false } }

/** What reads and writes etcd's files, with an etcd beside it: of the conformance suites, these run our sources. */
const besideEtcd = ['etcd-file', 'transfer', 'snapshot-etcd', 'migration'].map(
  (name) => `test/conformance/${name}.test.ts`,
)

// One project after the other: clusters would measure the load of the unit tests.
export default defineConfig({
  test: {
    pool: 'forks',
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          ...fromSources,
          sequence: { groupOrder: 0 },
          include: ['test/unit/**/*.test.ts', 'test/layers.test.ts'],
          // Many start real processes, on machines that build at the same time.
          testTimeout: minute,
          hookTimeout: minute,
        },
      },
      {
        extends: true,
        test: {
          name: 'etcd',
          ...fromSources,
          sequence: { groupOrder: 1 },
          include: besideEtcd,
          fileParallelism: false,
          testTimeout: 20 * minute,
          hookTimeout: 5 * minute,
        },
      },
      {
        extends: true,
        test: {
          name: 'conformance',
          sequence: { groupOrder: 2 },
          include: ['test/conformance/**/*.test.ts'],
          exclude: besideEtcd,
          // Each file loads servers as far as it can, and some know leases of two seconds.
          fileParallelism: false,
          testTimeout: 20 * minute,
          hookTimeout: 5 * minute,
        },
      },
      {
        extends: true,
        test: {
          name: 'integration',
          ...coverage,
          sequence: { groupOrder: 3 },
          include: ['test/integration/**/*.test.ts'],
          // Each file starts clusters, which wait more than they work: two files take little longer than one.
          maxWorkers: 2,
          testTimeout: 5 * minute,
          hookTimeout: 5 * minute,
        },
      },
      {
        extends: true,
        test: {
          // Of `make test-all` alone.
          name: 'long',
          sequence: { groupOrder: 4 },
          include: ['test/long/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 60 * minute,
          hookTimeout: 5 * minute,
        },
      },
    ],
  },
})
