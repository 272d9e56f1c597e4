import type { Command } from './command.ts'
import { dbCheck } from './db/check.ts'
import { dbCompact } from './db/compact.ts'
import { dbDisarm } from './db/disarm.ts'
import { dbExportEtcd } from './db/export-etcd.ts'
import { dbImportEtcd } from './db/import-etcd.ts'
import { dbImportKine } from './db/import-kine.ts'
import { dbStatus } from './db/status.ts'

/** `k8s db ...`: the database by hand. */
export const dbCommands: readonly Command[] = [
  dbStatus,
  dbCompact,
  dbDisarm,
  dbCheck,
  dbExportEtcd,
  dbImportEtcd,
  dbImportKine,
]
