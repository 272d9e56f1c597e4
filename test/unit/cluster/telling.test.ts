import { expect, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import { startReport } from '../../../src/cluster/telling.ts'
import { paths } from '../../../src/config/paths.ts'

// It named a kubeconfig alone: whoever typed that had another payload unpacked in /var/lib/k8s, and no `k8s status`.
test('how to use the cluster is told once, for the data directory that it has', () => {
  const lines: string[] = []
  const report = startReport({
    isServer: true,
    announce: (line) => void lines.push(line),
    log: silentLogger,
    paths: paths({ dataDir: '/srv/run' }),
    command: '/srv/dist/k8s',
  })
  report.ready('datastore')
  expect(lines.splice(0)).toEqual([expect.stringMatching(/^datastore +ready after \d+\.\d\d s$/)])
  report.all()
  report.all()
  expect(lines).toEqual([
    '',
    'The cluster is ready. To use it from another terminal:',
    '    export K8S_DATA_DIR=/srv/run KUBECONFIG=/srv/run/admin.kubeconfig',
    '    /srv/dist/k8s kubectl get nodes',
  ])
})
