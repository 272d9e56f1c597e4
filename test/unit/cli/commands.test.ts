import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempDisposableSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { silentLogger } from '../../../src/base/logger.ts'
import type { DaemonStatus } from '../../../src/control/messages.ts'
import { serveControl } from '../../../src/control/server.ts'
import { runCli, runInEmptyDirectory, runProcess } from './run-cli.ts'

const serveControlFixture = new URL('../../fixtures/serve-control.ts', import.meta.url).pathname

const running: DaemonStatus = {
  version: 'v1.37.1+k8s.1',
  startedAt: '2026-11-21T10:00:00.000Z',
  nodeName: 'worker-1',
  role: 'server',
  nodeReady: true,
  state: 'ready',
  problems: [],
  parts: [],
  payloads: [],
  components: [
    {
      name: 'datastore',
      state: 'ready',
      pid: process.pid,
      restarts: 0,
      since: new Date().toISOString(),
      memoryBytes: 150 * 2 ** 20,
      cpuMillicores: 12,
    },
    {
      name: 'kubelet',
      state: 'backoff',
      restarts: 3,
      since: new Date().toISOString(),
      lastFailure: {
        at: new Date().toISOString(),
        message: 'kubelet exited with code 1 after 2 s',
        lastLines: [],
      },
      memoryBytes: null,
      cpuMillicores: null,
    },
  ],
}

/** A daemon's control socket in a data directory of its own, which answers as it is told. */
async function serve(status: () => DaemonStatus) {
  const directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-cli-'))
  const stops: { pods: boolean }[] = []
  const path = join(directory.path, 'run', 'control.sock')
  const server = await serveControl({
    path,
    log: silentLogger,
    handlers: {
      status: () => Promise.resolve(status()),
      stop: (request) => {
        stops.push(request)
        return Promise.resolve()
      },
    },
  })
  return {
    dataDir: directory.path,
    stops,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]()
      directory.remove()
    },
  }
}

describe('bad input ends with 2, one line, and nothing touched', () => {
  test.each([
    [
      ['--node-nam=x', '--data-dir=DIR/data'],
      {},
      'k8s: cannot use --node-nam: there is no such flag; did you mean --node-name?',
    ],
    [['--v=11', '--data-dir=DIR/data'], {}, 'k8s: cannot use --v=11: allowed is a whole number from 0 to 10'],
    [
      ['server', '--data-dir=DIR/data'],
      { K8S_CLUSTER_CIDR: '10.96.0.0/16' },
      'k8s: cannot use K8S_CLUSTER_CIDR=10.96.0.0/16 in the environment: it overlaps with the default service-cidr 10.96.0.0/12',
    ],
    [
      ['datastore', '--data-dir=DIR/data', '--node-name=x'],
      {},
      'k8s: cannot use --node-name with k8s datastore: it belongs to k8s server, k8s agent, k8s kubelet, 2 more',
    ],
    [
      ['--data-dir=DIR/data', '--listen-address=127.0.0.1:1'],
      {},
      'k8s: cannot use --listen-address: a server has no such setting; leave it away, or choose the role datastore, which has it',
    ],
    [
      ['--data-dir=DIR/data', '--node-name=x'],
      { K8S_ROLE: 'datastore' },
      'k8s: cannot use --node-name: a datastore has no such setting; leave it away, or choose the role server or agent or kubelet, which has it',
    ],
    [
      ['status', '--data-dir=DIR/data', '--timeout=5'],
      {},
      'k8s: cannot use --timeout=5: allowed is a whole number with its unit, such as 500ms, 30s, 5m or 1h',
    ],
    [
      ['stop', '--data-dir=/'],
      {},
      'k8s: cannot use --data-dir=/: allowed is the path of a directory other than /, without colons and commas',
    ],
    [
      ['reset', '--data-dir=DIR/data', '--force=perhaps'],
      {},
      'k8s: cannot use --force=perhaps: allowed is true or false',
    ],
  ])('%j with %j', async (args, environment, line) => {
    expect(await runInEmptyDirectory({ args, environment })).toEqual({
      code: 2,
      stdout: '',
      stderr: `${line}\n`,
      left: [],
    })
  })

  test('in the file: with its line', async () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-cli-'))
    const path = join(directory.path, 'config.yaml')
    writeFileSync(path, `data-dir: ${directory.path}/data\nnode-lable: [a=b]\n`)
    const outcome = await runInEmptyDirectory({ args: [], environment: { K8S_CONFIG: path } })
    expect(outcome).toMatchObject({
      code: 2,
      stderr: `k8s: cannot use node-lable in ${path}:2: there is no such setting; did you mean node-label?\n`,
      left: [],
    })
  })
})

describe("from the launcher's memory", () => {
  const environment = { K8S_LAUNCHER: 'unpacked-not' }

  test('the server asks to be unpacked, and touches nothing', async () => {
    const outcome = await runInEmptyDirectory({
      args: ['--data-dir=DIR/data', '--node-name=one'],
      environment,
    })
    expect(outcome).toEqual({ code: 100, stdout: '', stderr: '', left: [] })
  })

  test.each([
    ['server', []],
    ['datastore', ['--role=datastore']],
  ])('a %s says nothing twice', async (_, flags) => {
    const line = 'k8s: warning: K8S_AUTH_HOST in the environment is no setting and is passed over\n'
    const given = { ...environment, K8S_AUTH_HOST: 'https://192.0.2.1' }
    const args = ['--data-dir=DIR/data', ...flags]
    expect(await runInEmptyDirectory({ args, environment: given })).toMatchObject({ code: 100, stderr: '' })
    // What ends there is not said again.
    const refused = await runInEmptyDirectory({ args: [...args, '--v=11'], environment: given })
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('k8s: cannot use --v=11') })
    const checked = await runInEmptyDirectory({ args: ['check', '--data-dir=DIR/data'], environment: given })
    expect(checked.stderr).toBe(line)
  })

  test('bad input is refused at once', async () => {
    const outcome = await runInEmptyDirectory({
      args: ['--data-dir=DIR/data', '--node-name=ONE'],
      environment,
    })
    expect(outcome).toMatchObject({ code: 2, left: [] })
  })

  test.each([['--help'], ['version'], ['--version']])('%s works', async (argument) => {
    expect(await runInEmptyDirectory({ args: [argument], environment })).toMatchObject({
      code: 0,
      stderr: '',
      left: [],
    })
  })
})

describe('help', () => {
  test('lists the commands, those of the launcher too', async () => {
    const { stdout } = await runCli({ args: ['--help'] })
    for (const name of [
      'server',
      'status',
      'stop',
      'check',
      'reset',
      'version',
      'kubectl',
      'crictl',
      'ctr',
    ]) {
      expect(stdout).toMatch(new RegExp(`^  k8s ${name}\\b`, 'm'))
    }
  })

  test('of a command has its flags in groups, and examples', async () => {
    const { code, stdout } = await runCli({ args: ['server', '--help'] })
    expect(code).toBe(0)
    expect(stdout).toMatch(/^Node:\n {6}--node-name {2,}The name of the Node\./m)
    expect(stdout).toContain('[default: 10.244.0.0/16]')
    expect(stdout).toContain('Examples:\n')
  })
})

describe('version', () => {
  test('names what is inside', async () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-cli-'))
    const info = { gitVersion: 'v1.2.3+k8s.1', gitCommit: 'abc', gitTreeState: 'clean', buildDate: 'today' }
    mkdirSync(join(directory.path, 'lib'))
    writeFileSync(
      join(directory.path, 'lib', 'version.json'),
      JSON.stringify({ ...info, k8sVersion: 'v1.2.3', components: { runc: 'v9' } }),
    )
    const environment = { K8S_PAYLOAD_DIR: directory.path }
    expect((await runCli({ args: ['--version'], environment })).stdout).toBe(
      'GitVersion:   v1.2.3+k8s.1\nGitCommit:    abc\nGitTreeState: clean\nBuildDate:    today\nK8sVersion:   v1.2.3\nrunc:         v9\n',
    )
    const { stdout } = await runCli({ args: ['version', '-o', 'json'], environment })
    expect(JSON.parse(stdout)).toMatchObject(info)
  })
})

describe('status', () => {
  test('shows what the daemon says, and what its processes use', async () => {
    await using daemon = await serve(() => running)
    const { code, stdout } = await runCli({ args: ['status', `--data-dir=${daemon.dataDir}`] })
    expect(code).toBe(0)
    const [header, datastore, kubelet, ...rest] = stdout.split('\n')
    expect(header).toMatch(/^NAME +STATE +PID +RESTARTS +SINCE +MEMORY +CPU$/)
    expect(datastore).toMatch(new RegExp(`^datastore +ready +${process.pid} +0 +\\d+s +150Mi +12m$`))
    expect(kubelet).toMatch(/^kubelet +backoff +- +3 +\d+s +- +-$/)
    expect(rest.join('\n')).toMatch(/kubelet failed \d+s ago: kubelet exited with code 1 after 2 s/)
    expect(rest.join('\n')).toContain('Node worker-1 is Ready; the cluster is ready.')
  })

  test('says why a component is not ready, once', async () => {
    const [first, second] = running.components
    const reason = 'no answer within 10000 ms'
    const components = [
      { ...first!, state: 'unresponsive', reason },
      { ...second!, state: 'running', reason: 'the Node is not Ready' },
      { ...first!, name: 'etcd', reason: 'no writes' },
    ]
    const problems = [`datastore is unresponsive: ${reason}`, 'etcd: no writes']
    await using daemon = await serve(() => ({ ...running, state: 'degraded', problems, components }))
    const { code, stdout } = await runCli({ args: ['status', `--data-dir=${daemon.dataDir}`] })
    expect(code).toBe(3)
    expect(stdout.split(reason)).toHaveLength(2)
    expect(stdout.split('no writes')).toHaveLength(2)
    expect(stdout).toContain('\nkubelet is running: the Node is not Ready\n')
  })

  test('is JSON for a program', async () => {
    await using daemon = await serve(() => running)
    const { stdout } = await runCli({ args: ['status', '-o', 'json', `--data-dir=${daemon.dataDir}`] })
    const { components, nodeReady } = JSON.parse(stdout) as {
      nodeReady: boolean
      components: Record<string, unknown>[]
    }
    expect(nodeReady).toBe(true)
    expect(components[0]).toMatchObject({ name: 'datastore', pid: process.pid, cpuMillicores: 12 })
    expect(components[1]).toMatchObject({
      name: 'kubelet',
      restarts: 3,
      memoryBytes: null,
      cpuMillicores: null,
    })
  })

  test('--wait returns when all is ready', async () => {
    let asked = 0
    await using daemon = await serve(() => ({ ...running, state: ++asked >= 3 ? 'ready' : 'starting' }))
    const { code, stdout } = await runCli({ args: ['status', '--wait', `--data-dir=${daemon.dataDir}`] })
    expect({ code, asked }).toEqual({ code: 0, asked: 3 })
    expect(stdout).toContain('is Ready')
  })

  test('--wait says what it waited for', async () => {
    await using daemon = await serve(() => ({ ...running, state: 'starting' }))
    const args = ['status', '--wait', '--timeout=0s', `--data-dir=${daemon.dataDir}`]
    expect(await runCli({ args })).toEqual({
      code: 1,
      stdout: '',
      stderr:
        'k8s: cannot see a ready cluster after 0 s: kubelet is backoff. The logs of the daemon say more (journalctl -u k8s)\n',
    })
  })

  test('what serves without a part of it has an exit code of its own, at once and after a wait', async () => {
    const memoryBytes = 36 * 2 ** 20
    const parts = [
      { name: 'coredns', state: 'degraded', memoryBytes, message: 'no answer at 10.96.0.10' },
    ] as const
    const problems = ['coredns: no answer at 10.96.0.10']
    await using daemon = await serve(() => ({ ...running, state: 'degraded', problems, parts }))
    const args = ['status', `--data-dir=${daemon.dataDir}`]
    const { code, stdout } = await runCli({ args })
    expect(code).toBe(3)
    expect(stdout).toMatch(/^coredns +degraded +36Mi +no answer at 10\.96\.0\.10$/m)
    expect(stdout).toContain('the cluster is degraded.\n  coredns: no answer at 10.96.0.10\n')
    expect((await runCli({ args: [...args, '--wait', '--timeout=0s'] })).code).toBe(3)
  })

  test('without a daemon says how to start one', async () => {
    const { code, stdout, stderr, left } = await runInEmptyDirectory({
      args: ['status', '--data-dir=DIR/data'],
    })
    expect({ code, stdout, left }).toEqual({ code: 1, stdout: '', left: [] })
    expect(stderr).toMatch(
      /^k8s: cannot reach the daemon at DIR\/data\/run\/control.sock: it is not running\. .+\n$/,
    )
  })
})

describe('stop', () => {
  test('without a daemon has nothing to do', async () => {
    const outcome = await runInEmptyDirectory({ args: ['stop', '--data-dir=DIR/data'] })
    expect(outcome).toEqual({ code: 0, stdout: 'The daemon does not run.\n', stderr: '', left: [] })
  })

  test('of pods says when some run on', async () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-cli-'))
    const run = join(directory.path, 'run')
    const daemon = spawn(process.execPath, [serveControlFixture, join(run, 'control.sock')])
    await once(daemon.stdout, 'data')
    // One whose containerd hangs.
    const address = join(run, 'containerd/containerd.sock')
    const shim = spawn('bash', ['-c', 'read line', 'shim', '-address', address], {
      argv0: '/payload/bin/containerd-shim-runc-v2',
    })
    onTestFinished(() => {
      for (const child of [daemon, shim]) child.kill('SIGKILL')
    })
    await once(shim, 'spawn')
    const { code, stdout, stderr } = await runCli({
      args: ['stop', '--pods', `--data-dir=${directory.path}`],
    })
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(
      `k8s: cannot end all pods: 1 of their processes run on, such as bash (${shim.pid}). The log of the daemon`,
    )
  })

  test('of pods needs a daemon', async () => {
    expect(await runInEmptyDirectory({ args: ['stop', '--pods', '--data-dir=DIR/data'] })).toMatchObject({
      code: 1,
      left: [],
    })
  })
})

describe('reset', () => {
  test('refuses while the daemon runs', async () => {
    await using daemon = await serve(() => running)
    const { code, stderr } = await runCli({ args: ['reset', '--force', `--data-dir=${daemon.dataDir}`] })
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: 'k8s: cannot reset: the daemon runs. Stop it first: k8s stop --pods (or systemctl stop k8s)\n',
    })
  })

  test('asks, and where it cannot, wants --force', async () => {
    const outcome = await runInEmptyDirectory({ args: ['reset', '--data-dir=DIR/data'] })
    expect(outcome).toEqual({
      code: 2,
      stdout: '',
      stderr: 'k8s: cannot reset DIR/data without --force: there is no terminal to ask at\n',
      left: [],
    })
  })
})

describe('check', () => {
  test('shows each requirement, in both forms', async () => {
    const table = await runInEmptyDirectory({ args: ['check', '--data-dir=DIR/data'] })
    expect(table.stdout).toMatch(/^REQUIREMENT +STATE +DETAIL\n/)
    expect(table.stdout).toMatch(/^NetworkPolicy +(ok|warning) +/m)
    expect(table.left).toEqual([])
    const json = await runInEmptyDirectory({
      args: ['check', '-o=json', '--data-dir=DIR/data', `--node-name=${hostname()}`.toLowerCase()],
    })
    const requirements = JSON.parse(json.stdout) as { state: string; required: boolean }[]
    const isMissing = requirements.some(({ state, required }) => required && state === 'missing')
    expect(json.code).toBe(isMissing ? 1 : 0)
  })
})

describe('as a process', () => {
  test('the server needs root', async () => {
    const nobody = 65534
    const environment = { K8S_LAUNCHER: 'unpacked-not' }
    const { code, stderr } = await runProcess({ args: [], environment, uid: nobody })
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr:
        'k8s: cannot run the server as user 65534: mounts, networks and cgroups need root. Use sudo, or start it with systemctl start k8s\n',
    })
  })

  test('a refusal is one line on stderr and exit code 2', async () => {
    expect(await runProcess({ args: ['--node-nam=x'] })).toEqual({
      code: 2,
      stdout: '',
      stderr: 'k8s: cannot use --node-nam: there is no such flag; did you mean --node-name?\n',
    })
  })

  test('the launcher hears of a server that has to be unpacked', async () => {
    const environment = { K8S_LAUNCHER: 'unpacked-not' }
    expect(await runProcess({ args: ['--v=1'], environment })).toEqual({ code: 100, stdout: '', stderr: '' })
  })

  test('from sources, the version is that of the package or of what is built', async () => {
    const { code, stdout } = await runProcess({ args: ['--version'] })
    expect(code).toBe(0)
    expect(stdout).toMatch(/^GitVersion: +v\d/)
  })
})
