import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readdirSync, statSync } from 'node:fs'
import { type Cluster, defaultDataDir, startCluster } from './harness/cluster.ts'
import {
  atData,
  busybox,
  claim,
  deployment,
  pod,
  podSpec,
  service,
  sleepForever,
  webServer,
} from './harness/manifests.ts'
import { reportFailures } from './harness/report.ts'

let cluster: Cluster

beforeAll(async () => {
  cluster = await startCluster({ name: 'workloads' })
  await cluster.runPods(pod('client', sleepForever))
})
afterAll(() => cluster?.[Symbol.asyncDispose]())
reportFailures(() => cluster)

test('a Deployment behind a Service answers by DNS name and by cluster IP from another pod', async () => {
  await cluster.apply(
    deployment('web', webServer, {
      replicas: 2,
      container: { readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 } },
    }),
    service('web', { port: 80, targetPort: 8080 }),
  )
  await cluster.kubectl(['rollout', 'status', 'deployment/web', '--timeout=90s'], { timeoutMs: 100_000 })
  const { spec } = await cluster.get<{ spec: { clusterIP: string } }>('service', 'web')
  const hosts = ['web', 'web.default.svc.cluster.local', spec.clusterIP]
  for (const host of hosts) {
    const answer = await cluster.waitFor(`http://${host} answers`, () =>
      cluster.shell('client', `timeout 5 wget -q -O - http://${host}/`),
    )
    expect(`${host} ${answer}`).toMatch(new RegExp(`^${RegExp.escape(host)} web-`))
  }
  // kube-proxy learns of the second pod within a second, and then chooses at random: 40 requests all to one of two
  // happen once in 10^12 runs.
  await cluster.waitFor('both pods answer at the cluster IP', async () => {
    const answers = await cluster.shell(
      'client',
      `for i in $(seq 40); do wget -q -O - http://${spec.clusterIP}/; done`,
    )
    return new Set(answers.trim().split('\n')).size === 2
  })
})

test('a pod finds and reaches the API server by its Service', async () => {
  const lookup = await cluster.shell('client', 'nslookup kubernetes.default.svc.cluster.local')
  expect(lookup).toContain('10.96.0.1')
  await cluster.shell('client', 'nc -w 5 10.96.0.1 443 </dev/null')
})

test('pods have addresses of the cluster range and reach each other and the node', async () => {
  await cluster.runPods(pod('listener', webServer))
  const { status } = await cluster.pod('listener')
  expect(status.podIP).toMatch(/^10\.244\.0\./)
  expect(await cluster.shell('client', `timeout 5 wget -q -O - http://${status.podIP}:8080/`)).toBe(
    'listener\n',
  )
  const fromNode = await cluster.exec([
    'bash',
    '-c',
    `exec 3<>/dev/tcp/${status.podIP}/8080 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3`,
  ])
  expect(fromNode.stdout).toContain('listener')
})

test('exec passes input, output and the exit code', async () => {
  const echoed = await cluster.kubectl(
    ['exec', '-i', 'client', '--', 'sh', '-c', 'cat; echo problem >&2; exit 7'],
    {
      stdin: 'through and back',
      check: false,
    },
  )
  expect(echoed.stdout).toBe('through and back')
  expect(echoed.stderr).toContain('problem')
  expect(echoed.exitCode).toBe(7)
})

test('logs -f follows, and ends with the container', async () => {
  await cluster.runPods(
    pod('teller', 'echo first; until [ -e /tmp/go ]; do sleep 0.1; done; echo last', {
      spec: { restartPolicy: 'Never' },
    }),
  )
  await using follower = cluster.kubectlStart(['logs', '-f', 'teller'])
  let seen = ''
  follower.child.stdout?.on('data', (chunk) => (seen += String(chunk)))
  await cluster.waitFor('the first line came', async () => seen === 'first\n')
  await cluster.shell('teller', 'touch /tmp/go')
  expect((await follower.ended).exitCode).toBe(0)
  expect(seen).toBe('first\nlast\n')
})

test('port-forward carries requests to a pod', async () => {
  await cluster.runPods(pod('forwarded', webServer))
  await using forward = cluster.kubectlStart(['port-forward', 'pod/forwarded', '18080:8080'])
  let seen = ''
  forward.child.stdout?.on('data', (chunk) => (seen += String(chunk)))
  await cluster.waitFor('it listens', async () => seen.includes('Forwarding from 127.0.0.1:18080'))
  // Read up to the body's line: kubectl may keep its side of the connection open after the pod's has ended.
  const request = `exec 3<>/dev/tcp/127.0.0.1/18080 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3
    while IFS= read -r -t 30 line <&3; do echo "$line"; [[ $line != forwarded* ]] || exit 0; done; exit 1`
  expect((await cluster.exec(['bash', '-c', request])).stdout).toMatch(/200 OK[^]*forwarded/)
})

test('cp copies a file into a pod and back', async () => {
  const content = Buffer.from(Array.from({ length: 100_000 }, (_, index) => index % 256))
  await cluster.exec(['sh', '-c', 'cat >/tmp/sent'], { stdin: content })
  await cluster.kubectl(['cp', '/tmp/sent', 'client:/tmp/kept'])
  await cluster.kubectl(['cp', 'client:/tmp/kept', '/tmp/returned'])
  const sums = await cluster.exec(['sha256sum', '/tmp/sent', '/tmp/returned'])
  const [sent, returned] = sums.stdout
    .trim()
    .split('\n')
    .map((line) => line.split(' ')[0])
  expect(returned).toBe(sent)
})

test('a Job runs to its end', async () => {
  await cluster.apply({
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: 'count' },
    spec: {
      completions: 2,
      parallelism: 2,
      template: { spec: podSpec('count', 'echo counted', { spec: { restartPolicy: 'Never' } }) },
    },
  })
  await cluster.wait(['--for=condition=Complete', 'job/count'])
  expect((await cluster.kubectl(['logs', 'job/count'])).stdout).toContain('counted')
})

test('a CronJob starts a Job when its minute comes', async () => {
  await cluster.apply({
    apiVersion: 'batch/v1',
    kind: 'CronJob',
    metadata: { name: 'every-minute' },
    spec: {
      schedule: '* * * * *',
      jobTemplate: {
        spec: { template: { spec: podSpec('tick', 'echo tick', { spec: { restartPolicy: 'Never' } }) } },
      },
    },
  })
  const job = await cluster.waitFor(
    'the CronJob made a Job',
    async () => {
      const { items } = await cluster.get<{
        items: { metadata: { name: string; ownerReferences?: { name: string }[] } }[]
      }>('jobs')
      return items.find(({ metadata }) => metadata.ownerReferences?.[0]?.name === 'every-minute')?.metadata
        .name
    },
    { timeoutMs: 90_000, intervalMs: 1000 },
  )
  await cluster.wait(['--for=condition=Complete', `job/${job}`])
  expect((await cluster.kubectl(['logs', `job/${job}`])).stdout).toBe('tick\n')
  await cluster.kubectl(['delete', 'cronjob', 'every-minute'])
})

test('a failing liveness probe restarts its container', async () => {
  const livenessProbe = {
    exec: { command: ['test', '-e', '/tmp/alive'] },
    periodSeconds: 1,
    failureThreshold: 1,
  }
  await cluster.runPods(pod('mortal', `touch /tmp/alive; ${sleepForever}`, { container: { livenessProbe } }))
  await cluster.shell('mortal', 'rm /tmp/alive')
  const restarted = await cluster.waitFor('the container was restarted', async () => {
    const [status] = (await cluster.pod('mortal')).status.containerStatuses ?? []
    return status !== undefined && status.restartCount === 1 && status.ready ? status : undefined
  })
  expect(restarted.lastState.terminated).toBeDefined()
  const events = await cluster.kubectl([
    'get',
    'events',
    '--field-selector=involvedObject.name=mortal,reason=Unhealthy',
    '-o',
    'name',
  ])
  expect(events.stdout).not.toBe('')
})

test('a container that takes more than its memory limit is ended as OOMKilled', async () => {
  await cluster.apply(
    pod('greedy', 'exec dd if=/dev/zero of=/dev/null bs=200M count=10', {
      container: { resources: { limits: { memory: '32Mi' } } },
      spec: { restartPolicy: 'Never' },
    }),
  )
  const ended = await cluster.waitFor('the container ended', async () => {
    const [status] = (await cluster.pod('greedy')).status.containerStatuses ?? []
    return status?.state.terminated
  })
  expect(ended).toMatchObject({ reason: 'OOMKilled', exitCode: 137 })
})

test('a CPU limit is in force in the container', async () => {
  await cluster.runPods(
    pod('limited', sleepForever, { container: { resources: { limits: { cpu: '100m', memory: '64Mi' } } } }),
  )
  const limit = await cluster.shell(
    'limited',
    'cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us',
  )
  expect(limit.split(' ')[0]?.trim()).toBe('10000')
})

test('a ConfigMap reaches a pod as environment and as a file', async () => {
  await cluster.apply({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'settings' },
    data: { colour: 'green' },
  })
  await cluster.runPods(
    pod('reader', sleepForever, {
      container: {
        env: [{ name: 'COLOUR', valueFrom: { configMapKeyRef: { name: 'settings', key: 'colour' } } }],
        volumeMounts: [{ name: 'settings', mountPath: '/settings' }],
      },
      spec: { volumes: [{ name: 'settings', configMap: { name: 'settings' } }] },
    }),
  )
  expect(await cluster.shell('reader', 'echo $COLOUR; cat /settings/colour')).toBe('green\ngreen')
})

describe('volumes', () => {
  const storage = () => cluster.machine.path(`${defaultDataDir}/storage`)
  const modeOf = (path: string) => (statSync(path).mode & 0o7777).toString(8)
  const deleted = (...names: readonly string[]) => cluster.kubectl(['delete', ...names, '--timeout=60s'])
  const volumeOf = async (name: string) =>
    (await cluster.get<{ spec: { volumeName: string } }>('pvc', name)).spec.volumeName
  const gone = (volume: string) =>
    cluster.waitFor(`${volume} is gone`, async () => {
      const { exitCode } = await cluster.kubectl(['get', 'pv', volume], { check: false })
      return exitCode !== 0
    })

  test('what a pod writes is there for the next one, for whoever it runs as, and goes with its claim', async () => {
    const anybody = { securityContext: { runAsUser: 4711, runAsGroup: 4711 } }
    const { container, spec } = atData('data')
    await cluster.apply(claim('data'))
    await cluster.runPods(pod('first', sleepForever, { container, spec: { ...spec, ...anybody } }))
    await cluster.shell('first', 'echo kept >/data/file && mkdir /data/dir && chmod 700 /data/dir')
    await deleted('pod', 'first')
    await cluster.runPods(pod('second', sleepForever, { container, spec }))
    expect(await cluster.shell('second', 'cat /data/file')).toBe('kept\n')
    const volume = await volumeOf('data')
    const directory = `${volume}_default_data`
    expect(readdirSync(storage())).toEqual([directory])
    expect([modeOf(storage()), modeOf(`${storage()}/${directory}`)]).toEqual(['700', '777'])
    await deleted('pod', 'second')
    expect(readdirSync(storage())).toEqual([directory])
    await deleted('pvc', 'data')
    await gone(volume)
    expect(readdirSync(storage())).toEqual([])
  })

  test('what is to be kept is kept, and what the class cannot do is told by an Event', async () => {
    await cluster.apply(
      {
        ...{ apiVersion: 'storage.k8s.io/v1', kind: 'StorageClass', metadata: { name: 'kept' } },
        ...{ provisioner: 'rancher.io/local-path', reclaimPolicy: 'Retain' },
        volumeBindingMode: 'WaitForFirstConsumer',
      },
      claim('kept', { storageClassName: 'kept' }),
      claim('shared', { accessModes: ['ReadWriteMany'] }),
      pod('sharing', sleepForever, atData('shared')),
    )
    await cluster.runPods(pod('keeping', 'touch /data/file; exec sleep 3600', atData('kept')))
    const directory = `${storage()}/${await volumeOf('kept')}_default_kept`
    await deleted('pod', 'keeping')
    await deleted('pvc', 'kept')
    await cluster.waitFor('the Event on the claim', async () => {
      const { stdout } = await cluster.kubectl(['describe', 'pvc', 'shared'])
      return /ProvisioningFailed.*only supports ReadWriteOnce/.test(stdout)
    })
    await deleted('pod', 'sharing', '--grace-period=1')
    await deleted('pvc', 'shared')
    expect(readdirSync(directory)).toEqual(['file'])
  })

  test('nothing but volumes is made or removed, whatever a class or a volume says', async () => {
    const escape = '../../escaped'
    await cluster.apply(
      {
        ...{ apiVersion: 'storage.k8s.io/v1', kind: 'StorageClass', metadata: { name: 'careless' } },
        ...{ provisioner: 'rancher.io/local-path', parameters: { pathPattern: escape } },
        volumeBindingMode: 'WaitForFirstConsumer',
      },
      claim('out', { storageClassName: 'careless' }),
      pod('outside', sleepForever, atData('out')),
      {
        apiVersion: 'v1',
        kind: 'PersistentVolume',
        metadata: {
          name: 'foreign',
          annotations: { 'pv.kubernetes.io/provisioned-by': 'rancher.io/local-path' },
        },
        spec: {
          ...{ accessModes: ['ReadWriteOnce'], capacity: { storage: '1Mi' }, storageClassName: 'local-path' },
          ...{ persistentVolumeReclaimPolicy: 'Delete', hostPath: { path: '/etc/precious' } },
          claimRef: { namespace: 'default', name: 'never', uid: '00000000-0000-0000-0000-000000000000' },
          nodeAffinity: {
            required: {
              nodeSelectorTerms: [
                {
                  matchExpressions: [
                    { key: 'kubernetes.io/hostname', operator: 'In', values: [await nodeName()] },
                  ],
                },
              ],
            },
          },
        },
      },
    )
    await cluster.exec(['mkdir', '-p', '/etc/precious/data'])
    for (const [kind, name, event] of [
      ['pvc', 'out', 'ProvisioningFailed'],
      ['pv', 'foreign', 'VolumeFailedDelete'],
    ] as const) {
      await cluster.waitFor(`the Event on ${name}`, async () => {
        const { stdout } = await cluster.kubectl(['describe', kind, name])
        return new RegExp(`${event}.*refused /.*it is not below ${defaultDataDir}/storage`).test(stdout)
      })
    }
    await cluster.exec(['test', '-d', '/etc/precious/data'])
    expect((await cluster.exec(['ls', '/var/lib/k8s/..', '/var/lib'])).stdout).not.toContain('escaped')
    await deleted('pod', 'outside', '--grace-period=1')
    await deleted('pvc', 'out')
    await deleted('pv', 'foreign')
  })
})

async function nodeName(): Promise<string> {
  const { items } = await cluster.get<{ items: { metadata: { name: string } }[] }>('nodes')
  return items[0]!.metadata.name
}

test('the image came from an archive and is pinned', async () => {
  const { images } = JSON.parse((await cluster.k8s(['crictl', 'images', '-o', 'json'])).stdout) as {
    images: { repoTags: string[]; pinned: boolean }[]
  }
  expect(images.find(({ repoTags }) => repoTags.includes(busybox))).toMatchObject({ pinned: true })
})
