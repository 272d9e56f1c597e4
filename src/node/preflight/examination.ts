import type { AgentConfig, Config, KubeletConfig } from '../../config/config.ts'
import type { HostFacts } from '../facts/host.ts'
import type { HostFiles } from '../facts/host-files.ts'
import type { Network } from '../facts/node-address.ts'

/** What the requirements are read from. */
export interface Examination {
  readonly config: Config | AgentConfig | KubeletConfig
  readonly host: HostFacts
  readonly files: HostFiles
  readonly network: Network
  /** The daemon of this data directory runs. */
  readonly isRunning: boolean
  readonly isRoot: boolean
  /** Of whoever asks. */
  readonly umask: number
  readonly now: Date
}
