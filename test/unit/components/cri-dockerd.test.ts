import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { criDockerd, criDockerdArguments, refuseAnother } from '../../../src/components/cri-dockerd.ts'
import type { KubeletContext } from '../../../src/components/component.ts'
import { paths } from '../../../src/config/paths.ts'
import { temporaryDirectory } from '../datastore/support.ts'

const context = (sysResource: boolean, given: Partial<KubeletContext['config']> = {}) =>
  ({
    config: { dockerEndpoint: '/run/d.sock', criDockerdArg: [], v: 0, ...given },
    paths: paths({ dataDir: '/var/lib/k8s' }),
    payload: { cniBinDir: '/p/bin/cni', version: { images: { pause: 'k8s.local/pause:1' } } },
    host: { capabilities: { sysResource } },
  }) as unknown as KubeletContext

test('pods are on Docker’s own network, and their streams on loopback', () => {
  const given = criDockerdArguments(context(true))
  expect(given).toEqual([
    '--container-runtime-endpoint=unix:///var/run/cri-dockerd.sock',
    '--docker-endpoint=unix:///run/d.sock',
    '--cri-dockerd-root-directory=/var/lib/k8s/cri-dockerd',
    '--pod-infra-container-image=k8s.local/pause:1',
    '--network-plugin=',
    '--cni-bin-dir=/p/bin/cni,/opt/cni/bin',
    '--cni-conf-dir=/var/lib/k8s/etc/cni',
    '--cni-cache-dir=/var/lib/k8s/cri-dockerd/cni',
    '--streaming-bind-addr=127.0.0.1',
    '--log-level=warn',
  ])
})

test('without CAP_SYS_RESOURCE nothing gets a lower score, and what users pass comes last', () => {
  const given = criDockerdArguments(context(false, { v: 2, criDockerdArg: ['network-plugin=cni'] }))
  expect(given).toContain('--min-oom-score-adj=0')
  expect(given.slice(-2)).toEqual(['--log-level=info', '--network-plugin=cni'])
})

test('it stands where containerd does', () => {
  expect(criDockerd(context(true))).toMatchObject({ name: 'cri-dockerd', needs: [], provides: ['cri'] })
})

test('one that others run keeps its socket; what one left behind is taken over', async () => {
  const path = join(temporaryDirectory(), 'cri.sock')
  await refuseAnother(path)
  // The settings of HTTP/2, with which a server of gRPC begins.
  const server = createServer((socket) => void socket.end(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]))).listen(
    path,
  )
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  await expect(refuseAnother(path)).rejects.toThrow(`another one serves ${path}`)
})
