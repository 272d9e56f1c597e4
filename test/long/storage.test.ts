import { storageTests } from '../conformance/storage-suite.ts'

storageTests([{ version: 'v0.36.4', package: 'pkg/storage/etcd3', passes: 335, skips: 0 }])
