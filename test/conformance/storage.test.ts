import { storageTests } from './storage-suite.ts'

const version = 'v0.37.1'

storageTests([
  { version, package: 'pkg/storage/etcd3', passes: 509, skips: 0 },
  { version, package: 'pkg/storage/cacher', passes: 645, skips: 4 },
  { version, package: 'pkg/registry/generic/registry', passes: 100, skips: 0 },
])
