import { everyRole } from '../roles.ts'
import { type HttpAddress, httpAddress } from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Metrics'

export interface MetricsSettings {
  readonly metricsAddress?: HttpAddress
}

export const metricsSettings: Rows<MetricsSettings> = {
  'metrics-address': {
    group,
    description:
      "Serve the daemon's own metrics (/metrics) and whether it answers (/livez) here over HTTP. A server or agent does so on loopback alone; a datastore as etcd does, with /health and /readyz, where https:// uses its certificate.",
    kind: httpAddress,
    defaultText: 'nowhere',
    roles: everyRole,
  },
}
