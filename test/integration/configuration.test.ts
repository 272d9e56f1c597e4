import { afterAll, beforeAll, expect, test } from 'vitest'
import { Machine } from './harness/machine.ts'

// Bad input as the built artifact meets it: the launcher, too, must touch nothing.

let machine: Machine

beforeAll(async () => {
  machine = await Machine.create({ name: 'configuration' })
})
afterAll(() => machine?.[Symbol.asyncDispose]())

interface BadInput {
  readonly flags?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly file?: string
  /** What the one line has to name: key, value, what is allowed. */
  readonly says: readonly (string | RegExp)[]
}

const inputs: Readonly<Record<string, BadInput>> = {
  'an unknown flag': { flags: ['--node-nmae=a'], says: ['--node-nmae', '--node-name'] },
  'an unknown flag that resembles nothing': { flags: ['--frobnicate'], says: ['--frobnicate', '--help'] },
  'an unknown command': { flags: ['statsu'], says: ['statsu', 'status'] },
  'a setting of another role': {
    flags: ['--listen-address=127.0.0.1:1'],
    says: ['--listen-address', 'a server has no such setting', 'datastore'],
  },
  'a role that is to come': {
    flags: ['--role=virtual-node'],
    says: ['--role=virtual-node', 'not there yet'],
  },
  'an unknown key of the file': {
    file: 'node-nmae: a\n',
    says: ['node-nmae', '/etc/k8s/config.yaml:1', 'node-name'],
  },
  'a file that is no YAML': { file: 'node-name: [a\n', says: ['/etc/k8s/config.yaml'] },
  'a file that is no mapping': { file: '- node-name\n', says: ['/etc/k8s/config.yaml'] },
  'a configuration file that is missing': {
    flags: ['--config=/etc/k8s/none.yaml'],
    says: ['/etc/k8s/none.yaml'],
  },
  'a flag without its value': { flags: ['--node-ip'], says: ['--node-ip', 'value'] },
  'a port that is no number': {
    flags: ['--https-listen-port=https'],
    says: ['--https-listen-port', 'https', '65535'],
  },
  'a port out of range': {
    env: { K8S_HTTPS_LISTEN_PORT: '65536' },
    says: ['K8S_HTTPS_LISTEN_PORT', '65536', '65535'],
  },
  'a node name that is none': { flags: ['--node-name=Under_Score'], says: ['--node-name', 'Under_Score'] },
  'an address that is none': {
    file: 'v: 2\nnode-ip: 10.0.0\n',
    says: ['node-ip', '10.0.0', '/etc/k8s/config.yaml:2'],
  },
  'a range that is none': { flags: ['--cluster-cidr=10.244.0.0'], says: ['--cluster-cidr', '10.244.0.0'] },
  'a label with a bad key': { flags: ['--node-label=-a=b'], says: ['--node-label', '-a=b'] },
  "a label of Kubernetes' own": {
    flags: ['--node-label=node-role.kubernetes.io/x=y'],
    says: ['--node-label', 'node-role.kubernetes.io/x'],
  },
  'a taint without an effect': { flags: ['--node-taint=a=b'], says: ['--node-taint', 'a=b', 'NoSchedule'] },
  'a verbosity out of range': { flags: ['--v=11'], says: ['--v', '11', '10'] },
  'a choice that there is not': {
    flags: ['--kube-proxy-mode=ipvs'],
    says: ['--kube-proxy-mode', 'ipvs', 'nftables', 'iptables'],
  },
  'a part that cannot be disabled': {
    flags: ['--disable=kubelet'],
    says: ['--disable', 'kubelet', 'coredns', 'kube-proxy'],
  },
  'a boolean that is none': {
    env: { K8S_STOP_PODS: 'perhaps' },
    says: ['K8S_STOP_PODS', 'perhaps', 'true', 'false'],
  },
  'a passed flag without a value': { flags: ['--kubelet-arg=max-pods'], says: ['--kubelet-arg', 'max-pods'] },
  "a passed flag that is the daemon's": {
    flags: ['--kube-apiserver-arg=etcd-servers=http://127.0.0.1:2379'],
    says: ['--kube-apiserver-arg', 'etcd-servers'],
  },
  'a server mode that does not exist': {
    flags: ['--server-mode=both'],
    says: ['--server-mode', 'both', 'single or ha'],
  },
  'ranges that overlap': {
    flags: ['--cluster-cidr=10.96.0.0/16'],
    says: ['--cluster-cidr', '10.96.0.0/16', 'service-cidr', '10.96.0.0/12'],
  },
  'a DNS address outside of the service range': {
    flags: ['--service-cidr=10.80.0.0/16', '--cluster-dns=10.81.0.10'],
    says: ['--cluster-dns', '10.81.0.10', '--service-cidr', '10.80.0.0/16'],
  },
  'families that do not match': {
    flags: ['--cluster-cidr=fd00:1::/56', '--service-cidr=10.96.0.0/12'],
    says: ['--cluster-cidr', 'IPv6', 'IPv4'],
  },
  "a port that is another component's": {
    flags: ['--https-listen-port=10250'],
    says: ['--https-listen-port', '10250', 'kubelet'],
  },
  "the kubelet's directory around the data directory": {
    flags: ['--data-dir=/var/lib/kubelet/k8s'],
    says: ['--data-dir', '/var/lib/kubelet'],
  },
}

test.for(Object.entries(inputs))('%s ends with one clear line and exit code 2', async ([, input]) => {
  if (input.file !== undefined) await writeConfig(input.file)
  const before = await listing()
  const { exitCode, stderr, stdout } = await machine.exec(['k8s', ...(input.flags ?? [])], {
    env: input.env ?? {},
    check: false,
  })
  expect(stdout).toBe('')
  expect(stderr).toMatch(/^k8s: [^\n]+\n$/)
  for (const word of input.says)
    expect(stderr).toMatch(typeof word === 'string' ? new RegExp(RegExp.escape(word)) : word)
  expect(exitCode).toBe(2)
  expect(await listing()).toBe(before)
  if (input.file !== undefined) await machine.exec(['rm', '-r', '/etc/k8s'])
})

test('a variable of another tool is told, and ends nothing', async () => {
  const env = { K8S_AUTH_KUBECONFIG: '/root/.kube/config', K8S_NODE_NMAE: 'a' }
  const { exitCode, stderr } = await machine.exec(['k8s', 'check'], { env, check: false })
  expect(exitCode).not.toBe(2)
  expect(stderr).toBe(
    'k8s: warning: K8S_NODE_NMAE in the environment is no setting and is passed over; did you mean K8S_NODE_NAME?\n' +
      'k8s: warning: K8S_AUTH_KUBECONFIG in the environment is no setting and is passed over\n',
  )
})

test('a flag wins over the environment, and that over the file', async () => {
  await writeConfig('v: 99\n')
  const ofFile = await machine.exec(['k8s'], { check: false })
  expect(ofFile.stderr).toContain('/etc/k8s/config.yaml:1')
  const ofEnvironment = await machine.exec(['k8s'], { env: { K8S_V: '98' }, check: false })
  expect(ofEnvironment.stderr).toContain('K8S_V=98')
  const ofFlag = await machine.exec(['k8s', '--v=97'], { env: { K8S_V: '98' }, check: false })
  expect(ofFlag.stderr).toContain('--v=97')
  await machine.exec(['rm', '-r', '/etc/k8s'])
})

test('--help and --version work on a machine that has nothing unpacked, and touch nothing', async () => {
  const before = await listing()
  const help = await machine.exec(['k8s', '--help'])
  for (const command of ['server', 'status', 'stop', 'check', 'reset', 'kubectl', 'crictl', 'ctr']) {
    expect(help.stdout).toContain(`k8s ${command}`)
  }
  const version = await machine.exec(['k8s', '--version'])
  expect(version.stdout).toMatch(/^GitVersion: +v1\.37\.1\+k8s\.1$/m)
  for (const field of [
    'GitCommit',
    'GitTreeState',
    'BuildDate',
    'K8sVersion',
    'containerd',
    'runc',
    'coredns',
    'node',
  ]) {
    expect(version.stdout).toMatch(new RegExp(`^${field}: +\\S`, 'mi'))
  }
  expect(await listing()).toBe(before)
})

test('commands without a daemon say that it does not run', async () => {
  const before = await listing()
  const status = await machine.exec(['k8s', 'status'], { check: false })
  expect(status.stderr).toMatch(/^k8s: [^\n]*not running[^\n]*\n$/)
  expect(status.exitCode).toBe(1)
  // What stop is asked for is the case already.
  expect(await machine.exec(['k8s', 'stop'])).toMatchObject({
    exitCode: 0,
    stdout: 'The daemon does not run.\n',
  })
  expect(await listing()).toBe(before)
})

test('check names each requirement with its state and leaves the machine alone', async () => {
  const before = await listing()
  const { exitCode, stdout } = await machine.exec(['k8s', 'check'])
  expect(exitCode).toBe(0)
  expect(stdout).toMatch(/NetworkPolicy[^\n]*enforced by [^\n]*nft/)
  const { stdout: json } = await machine.exec(['k8s', 'check', '-o', 'json'])
  const requirements = JSON.parse(json) as {
    name: string
    state: string
    required: boolean
    remedy?: string
  }[]
  expect(requirements.length).toBeGreaterThan(8)
  expect(requirements.filter(({ state }) => !['ok', 'missing', 'warning'].includes(state))).toEqual([])
  expect(requirements.filter(({ state, remedy }) => state !== 'ok' && !remedy)).toEqual([])
  expect(await listing()).toBe(before)
})

test('check fails on a taken port', async () => {
  await using holder = machine.spawn([
    process.execPath,
    '-e',
    'require("net").createServer().listen(6443, () => console.log("up"))',
  ])
  await new Promise((resolve) => holder.child.stdout?.once('data', resolve))
  const { exitCode, stdout } = await machine.exec(['k8s', 'check'], { check: false })
  expect(exitCode).toBe(1)
  expect(stdout).toMatch(/6443/)
})

test('kubectl without a cluster says so in two lines, and asks nobody', async () => {
  const ask = (env = {}) => machine.exec(['k8s', 'kubectl', 'get', 'nodes'], { env, check: false })
  const none = 'error: host must be a URL or a host:port pair: "https://no kubeconfig names a cluster"\n'
  expect(await ask()).toMatchObject({
    exitCode: 1,
    stdout: '',
    stderr: `k8s: there is no cluster in /var/lib/k8s: start one with systemctl start k8s, or k8s\n${none}`,
  })
  expect(await ask({ KUBECONFIG: '/gone' })).toMatchObject({
    exitCode: 1,
    stderr: `k8s: KUBECONFIG is /gone, which is not there: unset it for the cluster in /var/lib/k8s\n${none}`,
  })
})

/** Every path with its change time, in all directories that a node writes to. */
async function listing(): Promise<string> {
  const directories = ['/var/lib', '/var/log', '/run', '/etc', '/tmp', '/opt', '/sys/fs/cgroup']
  return (await machine.exec(['find', ...directories, '-xdev', '-printf', '%p %T@ %m\\n'])).stdout
}

async function writeConfig(text: string): Promise<void> {
  await machine.exec(['sh', '-c', 'mkdir -p /etc/k8s && cat >/etc/k8s/config.yaml'], { stdin: text })
}
