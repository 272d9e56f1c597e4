import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Cluster, startCluster } from './harness/cluster.ts'
import { kubernetesVersion } from './harness/images.ts'
import { repository } from './harness/machine.ts'
import { busybox, pod, sleepForever } from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

// What patches/ takes out of Kubernetes is told to whom asks for it, and what it leaves works.

let cluster: Cluster

beforeAll(async () => {
  cluster = await startCluster({ name: 'patches' })
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

const iscsi = { targetPortal: '192.0.2.1:3260', iqn: 'iqn.2001-04.org.example:none', lun: 0 }

/** The types of volumes that no CSI driver stands in for by itself, as a pod asks for them. */
const removed: Readonly<Record<string, object>> = {
  cephfs: { monitors: ['192.0.2.1'] },
  fc: { targetWWNs: ['50060e801049cfd1'], lun: 0 },
  flexVolume: { driver: 'example.org/none' },
  flocker: { datasetName: 'none' },
  gitRepo: { repository: 'https://192.0.2.1/none' },
  glusterfs: { endpoints: 'none', path: 'none' },
  iscsi,
  photonPersistentDisk: { pdID: 'none' },
  quobyte: { registry: '192.0.2.1:7861', volume: 'none' },
  rbd: { monitors: ['192.0.2.1'], image: 'none' },
  scaleIO: { gateway: 'https://192.0.2.1', system: 'none', volumeName: 'none', secretRef: { name: 'none' } },
  storageos: { volumeName: 'none' },
}

const refusal = (type: string) =>
  `volume type ${type} is not supported by this distribution: use a CSI driver`

test('a pod that asks for a volume whose driver is gone gets an Event that says so', async () => {
  await cluster.apply(
    ...Object.entries(removed).map(([type, source]) =>
      pod(`wants-${type.toLowerCase()}`, sleepForever, {
        container: { volumeMounts: [{ name: 'volume', mountPath: '/volume' }] },
        spec: { volumes: [{ name: 'volume', [type]: source }] },
      }),
    ),
  )
  for (const type of Object.keys(removed)) {
    const message = await cluster.waitFor(`an Event about ${type}`, async () => {
      const { items } = await cluster.get<{ items: { message: string }[] }>(
        ...['events', `--field-selector=reason=FailedMount,involvedObject.name=wants-${type.toLowerCase()}`],
      )
      return items[0]?.message
    })
    expect(message).toContain(refusal(type))
  }
})

test('a PersistentVolume whose driver is gone says so when it is to be deleted', async () => {
  const size = { storage: '1Mi' }
  const accessModes = ['ReadWriteOnce']
  await cluster.apply(
    {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: 'gone' },
      spec: {
        capacity: size,
        accessModes,
        persistentVolumeReclaimPolicy: 'Delete',
        storageClassName: '',
        iscsi,
      },
    },
    {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: 'gone' },
      spec: { resources: { requests: size }, accessModes, storageClassName: '', volumeName: 'gone' },
    },
  )
  await cluster.wait(['--for=jsonpath={.status.phase}=Bound', 'pvc/gone'])
  await cluster.kubectl(['delete', 'pvc/gone'])
  await cluster.wait(['--for=jsonpath={.status.phase}=Failed', 'pv/gone'])
  const { status } = await cluster.get<{ status: { message: string } }>('pv', 'gone')
  expect(status.message).toContain(refusal('iscsi'))
})

test('the volumes that stay are mounted: all in one pod', async () => {
  // Off by default before 1.35.
  const image = kubernetesVersion().startsWith('v1.34.') ? undefined : { image: { reference: busybox } }
  const sources: Readonly<Record<string, object>> = {
    configmap: { configMap: { name: 'kept' } },
    secret: { secret: { secretName: 'kept' } },
    projected: { projected: { sources: [{ configMap: { name: 'kept' } }] } },
    downward: {
      downwardAPI: { items: [{ path: 'value', fieldRef: { fieldPath: 'metadata.name' } }] },
    },
    emptydir: { emptyDir: {} },
    hostpath: { hostPath: { path: '/srv/kept', type: 'DirectoryOrCreate' } },
    local: { persistentVolumeClaim: { claimName: 'kept' } },
    ...(image && { image }),
  }
  const size = { storage: '1Mi' }
  const accessModes = ['ReadWriteOnce']
  const node = await cluster.get<{ items: { metadata: { labels: Record<string, string> } }[] }>('nodes')
  const hostname = node.items[0]?.metadata.labels['kubernetes.io/hostname'] ?? ''
  const here = { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: [hostname] }] }
  await cluster.exec(['mkdir', '-p', '/srv/local'])
  await cluster.apply(
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'kept' }, data: { value: 'configured' } },
    { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'kept' }, stringData: { value: 'hidden' } },
    {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: 'kept' },
      spec: {
        capacity: size,
        accessModes,
        storageClassName: 'by-hand',
        local: { path: '/srv/local' },
        nodeAffinity: { required: { nodeSelectorTerms: [here] } },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: 'kept' },
      spec: { resources: { requests: size }, accessModes, storageClassName: 'by-hand', volumeName: 'kept' },
    },
  )
  const names = Object.keys(sources)
  await cluster.runPods(
    pod('mounts', sleepForever, {
      container: { volumeMounts: names.map((name) => ({ name, mountPath: `/volumes/${name}` })) },
      spec: { volumes: names.map((name) => ({ name, ...sources[name] })) },
    }),
  )
  expect(
    await cluster.shell(
      'mounts',
      `cd /volumes; for name in emptydir hostpath local; do echo $name >$name/value; done
       for name in configmap secret projected downward emptydir hostpath local; do echo $(cat $name/value); done
       ${image === undefined ? '' : 'test -x image/bin/busybox && echo image'}`,
    ),
  ).toBe(
    `configured\nhidden\nconfigured\nmounts\nemptydir\nhostpath\nlocal\n${image === undefined ? '' : 'image\n'}`,
  )
  expect((await cluster.exec(['cat', '/srv/kept/value', '/srv/local/value'])).stdout).toBe(
    'hostpath\nlocal\n',
  )
})

test('kube-proxy in a mode that is gone ends at once and names those that are there', async () => {
  const proxy = `${repository}/build/payload/bin/kube-proxy`
  const { exitCode, stderr } = await cluster.exec([proxy, '--proxy-mode=ipvs'], { check: false })
  expect(exitCode).toBe(1)
  expect(stderr).toContain('is not supported by this distribution: use nftables or iptables')
})
