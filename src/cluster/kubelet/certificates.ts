import { renewDaily } from '../renew-daily.ts'
import type { MachineTaskContext, Task } from '../tasks/task.ts'

/** As a server's, of the kubelet's own authorities. */
export const ownCertificates: Task<MachineTaskContext> = {
  name: 'certificates',
  purpose: 'renew certificates',
  leaderOnly: false,
  run: (context, signal) => renewDaily({ ...ownCertificates, ...context }, signal),
}
