import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Config } from '../../../../src/config/config.ts'
import { paths } from '../../../../src/config/paths.ts'
import { HostFiles } from '../../../../src/node/facts/host-files.ts'
import { readPodProcesses, readStartTicks } from '../../../../src/node/reset/pod-processes.ts'
import { runFileStep } from '../../../../src/node/reset/file-steps.ts'
import { keepForeignRules } from '../../../../src/node/reset/firewall-rules.ts'
import type { FileStep } from '../../../../src/node/reset/steps.ts'
import { lostVolumes, resetPlan } from '../../../../src/node/reset/plan.ts'
import { hostTree, legacy } from '../host-tree.ts'

const config = {
  role: 'server',
  serverMode: 'single',
  dataDir: '/data',
  kubeletRootDir: '/var/lib/kubelet',
  clusterCidr: '10.244.0.0/16',
} as Config

const stat = (pid: number, command: string, parent: number, state = 'S') =>
  `${pid} (${command}) ${state} ${parent} ${Array.from({ length: 17 }, (_, index) => index).join(' ')} ${pid}00 0 0\n`
const ownedBy = (user: number) => `Name:\tshim\nUid:\t${user}\t${user}\t${user}\t${user}\n`
const socket = '/data/run/containerd/containerd.sock'
const shim = (address: string) =>
  `/payload/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0-id\0abc\0-address\0${address}\0`

const used = {
  ...legacy,
  '/proc/self/mountinfo': [
    legacy['/proc/self/mountinfo'],
    '60 22 0:60 / /var/lib/kubelet rw - ext4 /dev/vdb rw',
    '61 60 0:61 / /var/lib/kubelet/pods/1/volumes/token rw - tmpfs tmpfs rw',
    '62 22 0:62 / /data/run/containerd/netns/cni-1 rw - nsfs nsfs rw',
    '63 22 0:63 / /var/lib/kubelet-of-another rw - tmpfs tmpfs rw',
  ].join('\n'),
  '/proc/100/stat': stat(100, 'containerd-shim', 1),
  '/proc/100/cmdline': shim(socket),
  '/proc/100/status': ownedBy(process.geteuid!()),
  '/proc/101/stat': stat(101, 'web (a) b', 100),
  '/proc/101/cmdline': 'web\0',
  '/proc/102/stat': stat(102, 'child', 101),
  '/proc/103/stat': stat(103, 'gone', 101, 'Z'),
  '/proc/200/stat': stat(200, 'containerd-shim', 1),
  '/proc/200/cmdline': shim('/run/k3s/containerd/containerd.sock'),
  '/proc/200/status': ownedBy(process.geteuid!()),
  // Anybody may call a process of his so.
  '/proc/300/stat': stat(300, 'containerd-shim', 1),
  '/proc/300/cmdline': shim(socket),
  '/proc/300/status': ownedBy(4242),
  '/proc/201/stat': stat(201, 'foreign', 200),
  '/proc/net/dev': 'Inter-|   Receive\n face |bytes\n    lo: 0 0\n  cni0: 0 0\n',
  '/sys/fs/cgroup/memory/kubepods/besteffort/cgroup.procs': '',
  '/sys/fs/cgroup/pids/kubepods/cgroup.procs': '',
  '/data/db/state.db': '',
  '/data/run/containerd/io.containerd.runtime.v2.task/k8s.io/abc/bootstrap.json':
    '{"version":3,"address":"unix:///run/containerd/s/0123abcd","protocol":"ttrpc"}',
  '/run/containerd/s/0123abcd': '',
  '/run/containerd/s/ffff': '',
  '/var/lib/cni/results/k8s-abc-eth0': '',
  '/var/lib/cni/results/podman-abc-eth0': '',
  '/var/log/pods/default_web_1/web/0.log': '',
}

test('a machine that never ran a cluster has nothing to lose', async () => {
  const steps = await resetPlan(config, { root: hostTree(legacy) })
  expect(steps.filter(({ kind }) => kind !== 'rules' && kind !== 'command')).toEqual([])
  expect(steps.filter((step) => step.kind === 'command' && step.command !== 'nft')).toEqual([])
})

test('everything that the cluster made goes, in an order that works, and nothing else', async () => {
  const root = hostTree(used)
  mkdirSync(join(root, '/var/log/containers'), { recursive: true })
  symlinkSync('/var/log/pods/default_web_1/web/0.log', join(root, '/var/log/containers/web.log'))
  symlinkSync('/var/log/docker/x.log', join(root, '/var/log/containers/foreign.log'))
  const steps = await resetPlan(config, { root })
  const told = steps
    .filter((step) => step.kind !== 'rules' && !(step.kind === 'command' && step.command === 'nft'))
    .map((step) => (step.kind === 'command' ? [step.command, ...step.args].join(' ') : step.description))
  expect(told).toEqual([
    'kill containerd-shim (100)',
    'kill web (a) b (101)',
    'kill child (102)',
    'unmount /data/run/containerd/netns/cni-1',
    'unmount /var/lib/kubelet/pods/1/volumes/token',
    'delete the network interface cni0',
    'remove the cgroup /sys/fs/cgroup/memory/kubepods',
    'remove the cgroup /sys/fs/cgroup/pids/kubepods',
    'remove /run/containerd/s/0123abcd',
    'remove /var/log/pods/default_web_1',
    'remove /var/log/containers/web.log',
    'remove /var/lib/cni/results/k8s-abc-eth0',
    'remove /data/run',
    'remove /data/db',
    'remove /var/lib/cni/results, if it is empty',
    'remove /var/lib/cni, if it is empty',
    'remove /run/containerd/s, if it is empty',
    'remove /run/containerd, if it is empty',
    'remove /var/log/containers, if it is empty',
    'remove /var/log/pods, if it is empty',
    'remove /data, if it is empty',
  ])
})

test.each([
  ['by its device', { '/proc/net/dev': 'face |bytes\n k8s-vxlan: 0 0\n' }],
  ['by its mark', { '/data/run/network': '' }],
])('the network between nodes goes, known %s', async (_, files) => {
  const steps = await resetPlan(config, { root: hostTree({ ...legacy, ...files }) })
  expect(steps).toContainEqual({ kind: 'network', description: "remove what leads to other nodes' pods" })
})

describe('links', () => {
  const tell = async (root: string, given: Partial<Config>) => {
    const steps = await resetPlan({ ...config, ...given }, { root })
    const kinds = ['kill', 'unmount', 'remove', 'empty', 'rmdir']
    return steps.filter(({ kind }) => kinds.includes(kind)).map(({ description }) => description)
  }
  const link = (root: string, path: string, target: string) => {
    mkdirSync(join(root, path, '..'), { recursive: true })
    symlinkSync(join(root, target), join(root, path))
  }

  test('in the way to a directory hide neither its mounts nor its shims, and lead to an empty directory', async () => {
    const root = hostTree({ ...used, '/var/lib/kubelet/pods/1/file': '' })
    link(root, '/srv/k8s', '/data')
    link(root, '/srv/kubelet', '/var/lib/kubelet')
    const told = await tell(root, { dataDir: '/srv/k8s', kubeletRootDir: '/srv/kubelet' })
    expect(told).toEqual(
      expect.arrayContaining([
        'kill containerd-shim (100)',
        'unmount /data/run/containerd/netns/cni-1',
        'unmount /var/lib/kubelet/pods/1/volumes/token',
        'remove /srv/kubelet/pods',
        'remove /srv/k8s/db',
      ]),
    )
    for (const path of ['/srv/k8s', '/srv/kubelet'])
      expect(told).not.toContain(`remove ${path}, if it is empty`)
    expect(await tell(root, {})).toContain('remove /var/lib/kubelet')
    expect(told).not.toContain('kill containerd-shim (200)')
  })

  test('to a part of the data lead to an empty directory, those to what a user keeps are only removed', async () => {
    const root = hostTree({ ...legacy, '/big/blobs/a': '', '/shared/snapshots/a': '', '/data/etc/a': '' })
    link(root, '/data/containerd', '/big/blobs')
    link(root, '/data/snapshots', '/shared/snapshots')
    expect(await tell(root, {})).toEqual([
      'empty /big/blobs, to which /data/containerd leads',
      'remove /data/etc',
      'remove the link /data/snapshots; /shared/snapshots stays',
      'remove /data, if it is empty',
    ])
    for (const step of await resetPlan(config, { root })) {
      if (step.kind === 'remove' || step.kind === 'empty') await runFileStep(step, { root })
    }
    expect(readdirSync(join(root, 'big/blobs'))).toEqual([])
    expect(readdirSync(join(root, 'shared/snapshots'))).toEqual(['a'])
  })
})

test('of directories that are file systems of their own, those with what users keep stay as they are', async () => {
  const mounts = ['/data', '/data/snapshots', '/data/containerd'].map(
    (path, index) => `6${index} 22 0:6${index} / ${path} rw - ext4 /dev/vdb rw`,
  )
  const root = hostTree({
    '/proc/self/mountinfo': mounts.join('\n'),
    ...{ '/data/snapshots/a': '', '/data/containerd/a': '', '/data/db/a': '' },
  })
  const steps = await resetPlan(config, { root })
  expect(steps.map(({ description }) => description)).toEqual(
    expect.arrayContaining(['leave /data/snapshots, where something is mounted, as it is']),
  )
  for (const step of steps) {
    if (step.kind === 'remove' || step.kind === 'empty') await runFileStep(step, { root })
  }
  expect(readdirSync(join(root, 'data')).toSorted()).toEqual(['containerd', 'snapshots'])
  expect(readdirSync(join(root, 'data/snapshots'))).toEqual(['a'])
  expect(readdirSync(join(root, 'data/containerd'))).toEqual([])
})

test('a directory that somebody has named for the kubelet may have more in it, which stays', async () => {
  const own = ['pods/1/file', 'plugins_registry/x.sock', 'cpu_manager_state', 'pki/kubelet.key']
  const tree = (names: readonly string[]) => Object.fromEntries(names.map((name) => [`/srv/${name}`, '']))
  const mounts = {
    '/proc/self/mountinfo': [
      '60 22 0:60 / /srv/www rw - nfs4 server:/www rw',
      '61 22 0:61 / /srv/pods/1/token rw - tmpfs tmpfs rw',
    ].join('\n'),
  }
  const resetIn = async (names: readonly string[]) => {
    const root = hostTree({ ...legacy, ...tree(names) })
    const steps = await resetPlan({ ...config, kubeletRootDir: '/srv' }, { root })
    for (const step of steps) {
      if (['remove', 'empty', 'rmdir'].includes(step.kind))
        await runFileStep(step as Exclude<FileStep, { kind: 'unmount' }>, { root })
    }
    return { root, told: steps.map(({ description }) => description) }
  }
  const shared = await resetIn([...own, 'www/index.html', 'lost+found/1'])
  expect(shared.told).toContain("leave in /srv what is not the kubelet's: lost+found, www")
  expect(readdirSync(join(shared.root, 'srv')).toSorted()).toEqual(['lost+found', 'www'])
  const root = hostTree({ ...tree([...own, 'www/index.html']), ...mounts })
  const steps = await resetPlan({ ...config, kubeletRootDir: '/srv' }, { root })
  expect(steps.filter(({ kind }) => kind === 'unmount')).toMatchObject([{ path: '/srv/pods/1/token' }])
  const alone = await resetIn(own)
  expect(existsSync(join(alone.root, 'srv'))).toBe(false)
})

test('everything that has a path in the data directory goes', async () => {
  const own = Object.values(paths(config)).filter((path) => path.startsWith('/data/'))
  const entries = [...new Set(own.map((path) => path.split('/')[2]))]
  const root = hostTree(Object.fromEntries(entries.map((name) => [`/data/${name}/file`, ''])))
  const removed = (await resetPlan(config, { root })).flatMap((step) =>
    step.kind === 'remove' ? [step.path] : [],
  )
  expect(removed.sort()).toEqual(entries.map((name) => `/data/${name}`).sort())
})

describe('volumes', () => {
  const files = { '/data/storage/pvc-1_default_a/file': '', '/data/storage/pvc-2_default_b/file': '' }
  const told = async (root: string, given: Partial<Config> = {}) =>
    (await resetPlan({ ...config, ...given }, { root })).map(({ description }) => description)

  test('go with the data directory, and it is told', async () => {
    const root = hostTree({ ...legacy, ...files })
    expect(await told(root)).toContain('remove /data/storage, with the data of 2 volumes')
    expect(lostVolumes(config, new HostFiles(root))).toBe('2 volumes')
    expect(lostVolumes(config, new HostFiles(hostTree(legacy)))).toBe('')
  })

  test('on a disk of their own stay', async () => {
    const mounted = { '/proc/self/mountinfo': '60 22 0:60 / /data/storage rw - ext4 /dev/vdb rw' }
    const root = hostTree({ ...legacy, ...files, ...mounted })
    expect(await told(root)).toContain('leave /data/storage, where something is mounted, as it is')
    expect(lostVolumes(config, new HostFiles(root))).toBe('')
    const linked = hostTree({ ...legacy, '/srv/pvc-1_default_a/file': '', '/data/db/a': '' })
    symlinkSync(join(linked, 'srv'), join(linked, 'data/storage'))
    expect(await told(linked)).toContain('remove the link /data/storage; /srv stays')
    expect(lostVolumes(config, new HostFiles(linked))).toBe('')
  })

  test('in a directory that was named for them stay, and it is told', async () => {
    const root = hostTree({ ...legacy, '/srv/pvc-1_default_a/file': '', '/empty/file': '' })
    expect(await told(root, { localStoragePath: '/srv' })).toContain('leave in /srv the data of a volume')
    for (const localStoragePath of ['/empty', '/none', '/data/storage'])
      expect((await told(root, { localStoragePath })).filter((line) => line.includes('data of'))).toEqual([])
  })
})

test('a slice of systemd is stopped before its cgroup goes', async () => {
  const root = hostTree({
    '/proc/self/mountinfo': '25 24 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw',
    '/sys/fs/cgroup/kubepods.slice/cgroup.procs': '',
  })
  const steps = await resetPlan(config, { root })
  expect(steps.filter(({ kind }) => kind !== 'rules').slice(-2)).toMatchObject([
    { kind: 'command', command: 'systemctl', args: ['stop', 'kubepods.slice'] },
    { kind: 'cgroup', path: '/sys/fs/cgroup/kubepods.slice' },
  ])
})

test('an address of the Node that is kept on lo goes, another one of lo stays', async () => {
  const addresses = async (files: Record<string, string>) => {
    const steps = await resetPlan(config, { root: hostTree(files) })
    return steps.flatMap((step) => (step.kind === 'address' ? [step.address] : []))
  }
  const record = { '/data/node.json': '{"address":"192.0.2.7"}' }
  expect(await addresses({ ...record, '/data/run/held-address': '192.0.2.7\n' })).toEqual(['192.0.2.7'])
  expect(await addresses({ ...record, '/data/run/held-address': 'nothing\n' })).toEqual([])
  expect(await addresses(record)).toEqual([])
})

describe('rules of iptables', () => {
  test('lose what Kubernetes and CNI added', () => {
    const saved = `*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:CNI-1a2b - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j DOCKER
-A KUBE-SERVICES -d 10.96.0.1/32 -j RETURN
-A POSTROUTING -s 10.244.0.5/32 -j CNI-1a2b
COMMIT
`
    expect(keepForeignRules(saved)).toBe(`*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -j DOCKER
COMMIT
`)
  })

  test('are not restored where there is nothing to take out', () => {
    expect(keepForeignRules('*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\nCOMMIT\n')).toBeUndefined()
  })
})

describe('a step', () => {
  const remove = (path: string, root: string) =>
    runFileStep({ kind: 'remove', description: '', path }, { root })

  test('never removes what is mounted', async () => {
    const root = hostTree(used)
    mkdirSync(join(root, '/var/lib/kubelet/pods/1/volumes/token'), { recursive: true })
    writeFileSync(join(root, '/var/lib/kubelet/pods/1/volumes/token/data'), 'precious')
    await expect(remove('/var/lib/kubelet', root)).rejects.toThrow(
      'cannot remove /var/lib/kubelet: /var/lib/kubelet/pods/1/volumes/token is still mounted',
    )
    expect(existsSync(join(root, '/var/lib/kubelet/pods/1/volumes/token/data'))).toBe(true)
  })

  // Root alone may mount.
  test.skipIf(process.getuid?.() !== 0)('removes nothing of what was mounted since the look', async () => {
    const root = hostTree({ '/tree/a/file': '', '/tree/z/file': '', '/precious/file': '' })
    mkdirSync(join(root, 'tree/m/below'), { recursive: true })
    const mountPoint = join(root, 'tree/m/below')
    // The list of mounts in the tree does not have it.
    execFileSync('mount', ['--bind', join(root, 'precious'), mountPoint])
    try {
      await expect(remove('/tree', root)).rejects.toMatchObject({
        message: 'cannot remove /tree',
        cause: { message: `${mountPoint} is mounted` },
      })
      expect(readdirSync(join(root, 'precious'))).toEqual(['file'])
      expect(readdirSync(join(root, 'tree'))).toEqual(['m'])
    } finally {
      execFileSync('umount', [mountPoint])
    }
    await remove('/tree', root)
    expect(readdirSync(root)).toEqual(['precious'])
  })

  test('removes directories that are nested deeper than a path is long', async () => {
    const root = hostTree({ '/tree/file': '' })
    const top = join(root, 'tree')
    for (let nest = 0; nest < 80; nest++) {
      // Each time what there is goes below a path of its own.
      renameSync(top, join(root, 'nest'))
      mkdirSync(join(top, 'deep/'.repeat(30)), { recursive: true })
      renameSync(join(root, 'nest'), join(top, 'deep/'.repeat(30), 'nest'))
    }
    await remove('/tree', root)
    expect(readdirSync(root)).toEqual([])
  })

  test.skipIf(process.getuid?.() !== 0)('names what cannot be removed, and removes the rest', async () => {
    const root = hostTree({ '/tree/a/file': '', '/tree/b/file': '', '/tree/c/file': '' })
    const stubborn = join(root, 'tree/b/file')
    try {
      execFileSync('chattr', ['+i', stubborn], { stdio: 'ignore' })
    } catch {
      // This file system has no such attribute.
      return
    }
    try {
      await expect(remove('/tree', root)).rejects.toMatchObject({
        cause: { message: `${stubborn}: EPERM: operation not permitted` },
      })
      expect(readdirSync(join(root, 'tree'))).toEqual(['b'])
    } finally {
      execFileSync('chattr', ['-i', stubborn])
    }
  })

  test('removes a link, not what it leads to', async () => {
    const root = hostTree({ '/elsewhere/file': '' })
    symlinkSync(join(root, 'elsewhere'), join(root, 'link'))
    await remove('/link', root)
    expect(lstatSync(join(root, 'link'), { throwIfNoEntry: false })).toBeUndefined()
    expect(existsSync(join(root, 'elsewhere/file'))).toBe(true)
  })

  test('empties a file system that is mounted where it removes, and names what it cannot remove', async () => {
    const root = hostTree({
      '/proc/self/mountinfo': '60 22 0:60 / /mnt/kubelet rw - ext4 /dev/vdb rw',
      '/mnt/kubelet/pods/a': '',
    })
    await remove('/mnt/kubelet', root)
    expect(readdirSync(join(root, 'mnt/kubelet'))).toEqual([])
    // The kernel lets nobody remove it.
    await expect(remove('/proc/self/comm', '/')).rejects.toThrow('cannot remove /proc/self/comm')
  })

  test('leaves a data directory in which someone else keeps files', async () => {
    const root = hostTree({ '/data/mine': '', '/empty/.x': '' })
    await remove('/empty/.x', root)
    for (const path of ['/data', '/empty'])
      await runFileStep({ kind: 'rmdir', description: '', path }, { root })
    expect([existsSync(join(root, 'data/mine')), existsSync(join(root, 'empty'))]).toEqual([true, false])
  })

  test('removes a cgroup from its leaves up, and is content with none', async () => {
    const root = hostTree({})
    mkdirSync(join(root, 'kubepods/burstable/pod1'), { recursive: true })
    const step = { kind: 'cgroup', description: '', path: '/kubepods' } as const
    await runFileStep(step, { root })
    expect(existsSync(join(root, 'kubepods'))).toBe(false)
    await runFileStep(step, { root })
  })

  test('ends a process that ignores SIGTERM, and returns when it is gone', async () => {
    const child = spawn('/bin/sh', ['-c', 'trap "" TERM; echo ready; while :; do read x; done'], {
      stdio: ['pipe', 'pipe', 'ignore'],
    })
    await once(child.stdout, 'data')
    const { pid = 0 } = child
    const startTicks = readStartTicks(new HostFiles(), pid) ?? 0
    const ended = once(child, 'exit')
    await runFileStep({ kind: 'kill', description: '', pid, startTicks })
    expect(readStartTicks(new HostFiles(), pid)).toBeUndefined()
    expect(await ended).toEqual([null, 'SIGKILL'])
  })

  test('spares a process that only got the number of another', async () => {
    await runFileStep({ kind: 'kill', description: '', pid: process.pid, startTicks: -1 })
    expect(readStartTicks(new HostFiles(), process.pid)).toBeGreaterThan(0)
  })
})

test('this machine’s processes are readable', () => {
  expect(readPodProcesses(new HostFiles(), '/nowhere/containerd.sock')).toEqual([])
})
