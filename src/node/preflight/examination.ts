import type { Config } from '../../config/config.ts'
import type { HostFacts } from '../facts/host.ts'
import type { HostFiles } from '../facts/host-files.ts'

/** What the requirements are read from. */
export interface Examination {
  readonly config: Config
  readonly host: HostFacts
  readonly files: HostFiles
  /** Of this machine's interfaces. */
  readonly addresses: readonly string[]
  /** The daemon of this data directory runs. */
  readonly isRunning: boolean
  readonly isRoot: boolean
  readonly now: Date
}
