import { directory } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Storage'

export interface StorageSettings {
  /** Absolute. */
  readonly dataDir: string
}

export const storageSettings: Rows<StorageSettings> = {
  'data-dir': {
    group,
    description: 'Where everything is kept that has to outlive a restart.',
    kind: directory,
    default: '/var/lib/k8s',
  },
}
