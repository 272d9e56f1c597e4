import { existsSync } from 'node:fs'
import { copyFile, mkdir, rm } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError } from '../base/errors.ts'
import { privateMode, readFileIfPresent, writeFileAtomically } from '../base/files.ts'
import { readStat } from '../base/proc.ts'
import { runCommand, runInForeground, spawnDetached } from '../supervisor/spawn.ts'
import { requireInotify } from './inotify.ts'
import { firstHost, Lan, lanScript, prefixLength } from './lan.ts'
import { enterArguments, hostEnvironment, machineEnvironment, machineScript } from './machine.ts'
import {
  isThere,
  type Keeper,
  keeperFile,
  keeperOf,
  labPaths,
  type LabNode,
  type LabState,
  logFile,
  readKeeper,
  readLabs,
  requireLab,
  writeLab,
} from './state.ts'

/*
 * A cluster of many nodes on one machine:
 *
 *    create   network ──▶ machines ──▶ first server ──▶ its kubeconfig, tokens ──▶ servers, agents ──▶ all Nodes are Ready
 *    cut      the machine's port leaves the bridge: nothing reaches it, it reaches nothing
 *    delete   machines with all that runs in them, the network, the files
 *
 * Each machine is kept by a process whose input is a pipe that nobody closes: it lives on when the command ends.
 */

const keeperLimitMs = 20_000
const pollMs = 20
const commandTimeoutMs = 60_000
/** Of a cluster's start, on a machine that is busy with all of its nodes. */
const readyLimitMs = 300_000
const readyPollMs = 250
const endLimitMs = 30_000

/** The networks of labs: 10.89.COUNT.0/24 is the first that no interface of the host has. */
const firstSubnet = 89
const lastSubnet = 189
/** The host's own address on it. */
const hostOnLan = 254

/** What a server's images directory takes up at its start (docs/configuration.md). */
const dataDir = '/var/lib/k8s'
const tokenFile = '/run/join-token'

export interface LabOptions {
  readonly labDir: string
  readonly name: string
  readonly servers: number
  readonly agents: number
  /** Archives of images that every node imports. */
  readonly images: readonly string[]
  /** What runs as k8s in the machines. */
  readonly artifact: string
  /** The same, unpacked. */
  readonly payload: string
  /** Hears of each step that is done. */
  readonly tell: (line: string) => void
}

/** Makes a cluster and waits until all of its Nodes are Ready. What was made of one that failed is removed. */
export async function createLab(options: LabOptions): Promise<void> {
  const { labDir, name, tell } = options
  const beganMs = performance.now()
  const told = (line: string) => tell(`${((performance.now() - beganMs) / 1000).toFixed(1)} s  ${line}`)
  const nodes = plannedNodes(options)
  await requireInotify([...(await readLabs(labDir)).flatMap((lab) => lab.nodes), ...nodes])
  await writeLab(labDir, { name, subnet: await freeSubnet(labDir), nodes })
  try {
    await makeNetwork(options)
    await makeMachines(options)
    told('the machines are there')
    await startServer(options)
    told('the first server is ready')
    await writeKubeconfig(options)
    await Promise.all([startOthers(options, 'server'), startOthers(options, 'agent')])
    await untilReady(options)
    told(`all ${options.servers + options.agents} nodes are Ready`)
  } catch (error) {
    const lab = await requireLab(labDir, name)
    const words = await Promise.all(lab.nodes.map(async (node) => lastWords(options, node)))
    await deleteLab({ labDir, name })
    throw new AppError(
      `cannot make the lab ${name}: ${describeError(error)}${words.join('')}`,
      { code: 'LAB_CREATE' },
      { cause: error },
    )
  }
}

/** Removes a lab and all that runs in it. Repeatable: what a crash has left goes, too. */
export async function deleteLab({ labDir, name }: { labDir: string; name: string }): Promise<void> {
  const lab = await requireLab(labDir, name)
  const paths = labPaths(labDir, name)
  await Promise.all(
    lab.nodes.map(async (node) => {
      const place = paths.machine(node.name)
      await endKeeper(place, `the machine ${node.name}`)
      await host(['/bin/bash', machineScript, 'clean', machineId(node), place])
    }),
  )
  await endKeeper(paths.network, `the network of ${name}`)
  await rm(paths.dir, { recursive: true, force: true })
}

/** Runs a shell in the machine of a node, or what comes from the standard input. Returns its exit code. */
export async function enterNode(node: LabNode): Promise<number> {
  return runInForeground({
    command: '/bin/bash',
    args: enterArguments(machineOf(node), ['bash']),
    env: { ...machineEnvironment, ...(process.env['TERM'] !== undefined && { TERM: process.env['TERM'] }) },
  })
}

/** Cuts the machine of a node off from all others, or gives it its place again. */
export async function setCut(given: {
  labDir: string
  lab: LabState
  node: LabNode
  isCut: boolean
}): Promise<void> {
  const { labDir, lab, node, isCut } = given
  const lan = lanOf(lab)
  await (isCut ? lan.cut(node.host) : lan.heal(node.host))
  await changeNode(labDir, { name: lab.name, nodeName: node.name }, { isCut })
}

function plannedNodes({ name, servers, agents }: LabOptions): LabNode[] {
  const roles = [
    ...Array.from({ length: servers }, (_, index) => ({ role: 'server' as const, number: index + 1 })),
    ...Array.from({ length: agents }, (_, index) => ({ role: 'agent' as const, number: index + 1 })),
  ]
  return roles.map(({ role, number }, index) => ({
    name: `${name}-${role}${number}`,
    role,
    host: firstHost + index,
  }))
}

async function freeSubnet(labDir: string): Promise<string> {
  const ofHost = Object.values(networkInterfaces()).flatMap((found) =>
    (found ?? []).map(({ address }) => address),
  )
  const ofLabs = (await readLabs(labDir)).map(({ subnet }) => `${subnet}.`)
  for (let third = firstSubnet; third <= lastSubnet; third++) {
    const subnet = `10.89.${third}`
    if (!ofLabs.includes(`${subnet}.`) && !ofHost.some((address) => address.startsWith(`${subnet}.`)))
      return subnet
  }
  throw new AppError(
    'cannot find a network for the lab: all from 10.89.89.0/24 to 10.89.189.0/24 are taken',
    {
      code: 'LAB_NETWORK',
      remedy: 'delete labs that are not needed any more (k8s lab ls)',
    },
  )
}

/** The host reaches the lab by a link of its own, which goes with the network's namespace. */
async function makeNetwork({ labDir, name }: LabOptions): Promise<void> {
  const lab = await requireLab(labDir, name)
  const place = labPaths(labDir, name).network
  const command = ['unshare', '--net', '/bin/bash', '-c', lanScript(lab.subnet)]
  const keeper = await startKeeper({ command, place, what: 'the network of the lab' })
  await writeLab(labDir, { ...lab, lan: keeper })
  const lan = lanOf({ ...lab, lan: keeper })
  const link = hostLink(lab)
  await lan.link(hostOnLan, { name: link, pid: process.pid })
  await host(['ip', 'address', 'add', `${lan.address(hostOnLan)}/${prefixLength}`, 'dev', link])
  await host(['ip', 'link', 'set', link, 'up'])
}

/** As long as the kernel lets it be, and of the lab alone: k8slab89. */
function hostLink({ subnet }: LabState): string {
  return `k8slab${subnet.split('.')[2]}`
}

async function makeMachines(options: LabOptions): Promise<void> {
  const { labDir, name, images, artifact, payload } = options
  const { nodes, ...lab } = await requireLab(labDir, name)
  const paths = labPaths(labDir, name)
  for (const node of nodes) {
    const place = paths.machine(node.name)
    const imagesDir = join(place, 'lib/k8s/images')
    await mkdir(imagesDir, { recursive: true })
    for (const image of images) await copyFile(image, join(imagesDir, basename(image)))
    const command = ['/bin/bash', machineScript, 'run', machineId(node), place, artifact, '', payload]
    const init = await startKeeper({ command, place, what: `the machine ${node.name}` })
    await changeNode(labDir, { name, nodeName: node.name }, { init })
    await lanOf(lab).plug(init.pid, node.host)
  }
}

/**
 * As systemd does it by systemd/k8s.service: what fails is started again, what a user wrote wrongly or has stopped is
 * not.
 */
const daemonScript = [
  'exec >>/var/log/k8s.log 2>&1',
  'for (( ; ; )); do',
  '  code=0; k8s "$@" || code=$?',
  '  case $code in 0 | 2 | 143) exit "$code" ;; esac',
  '  sleep 2',
  'done',
].join('\n')

async function startDaemon(node: LabNode, log: string, args: readonly string[]): Promise<void> {
  await spawnDetached(
    {
      command: '/bin/bash',
      args: enterArguments(machineOf(node), ['bash', '-c', daemonScript, 'k8s', ...args]),
      env: machineEnvironment,
    },
    log,
  )
}

/** What the first of several servers is told; the others join it. */
const severalServers = ['--server-mode=ha']

async function startServer({ labDir, name, servers }: LabOptions): Promise<void> {
  const [server] = await nodesOf({ labDir, name }, 'server')
  const args = servers > 1 ? [...severalServers, '--cluster-init'] : []
  await startDaemon(server!, logFile(labPaths(labDir, name).machine(server!.name)), args)
  // It is written before the API server is started.
  const kubeconfig = join(labPaths(labDir, name).machine(server!.name), 'lib/k8s/admin.kubeconfig')
  await until(`${server!.name} is ready`, async () => {
    if (!existsSync(kubeconfig)) return false
    const { exitCode } = await inMachine(server!, ['k8s', 'kubectl', 'get', '--raw=/readyz'], [1])
    return exitCode === 0
  })
}

async function writeKubeconfig({ labDir, name }: LabOptions): Promise<void> {
  const lab = await requireLab(labDir, name)
  const [server] = await nodesOf({ labDir, name }, 'server')
  const { stdout } = await inMachine(server!, ['cat', `${dataDir}/admin.kubeconfig`])
  const address = lanOf(lab).address(server!.host)
  const text = stdout.replace(/^(\s*"?server"?: *"?https:\/\/)[^:]+(:\d+)/m, `$1${address}$2`)
  await writeFileAtomically(labPaths(labDir, name).kubeconfig, text, { mode: privateMode })
}

/** Those that join the first server. */
async function startOthers({ labDir, name }: LabOptions, role: LabNode['role']): Promise<void> {
  const lab = await requireLab(labDir, name)
  const [server] = await nodesOf({ labDir, name }, 'server')
  const others = (await nodesOf({ labDir, name }, role)).filter((node) => node.name !== server!.name)
  if (others.length === 0) return
  const { stdout } = await inMachine(server!, ['k8s', 'token', 'create', `--role=${role}`])
  const url = `https://${lanOf(lab).address(server!.host)}:6443`
  const runs = role === 'server' ? severalServers : ['agent']
  for (const node of others) {
    await inMachine(node, ['bash', '-c', `umask 077; cat >${tokenFile}`], [], stdout)
    const log = logFile(labPaths(labDir, name).machine(node.name))
    await startDaemon(node, log, [...runs, `--server=${url}`, `--token-file=${tokenFile}`])
  }
}

async function untilReady({ labDir, name, servers, agents }: LabOptions): Promise<void> {
  const [server] = await nodesOf({ labDir, name }, 'server')
  const template = '{range .items[*]}{range .status.conditions[?(@.type=="Ready")]}{.status}{"\\n"}{end}{end}'
  await until('all nodes are Ready', async () => {
    const { stdout } = await inMachine(
      server!,
      ['k8s', 'kubectl', 'get', 'nodes', '-o', `jsonpath=${template}`],
      [1],
    )
    return stdout.split('\n').filter((status) => status === 'True').length === servers + agents
  })
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + readyLimitMs
  while (!(await isSo())) {
    if (performance.now() > endMs)
      throw new AppError(`${what} not within ${readyLimitMs / 1000} s`, { code: 'LAB_TIMEOUT' })
    await sleep(readyPollMs)
  }
}

/** What a node that did not come up has said last. */
async function lastWords({ labDir, name }: LabOptions, node: LabNode): Promise<string> {
  const log = await readFileIfPresent(join(labPaths(labDir, name).machine(node.name), 'log/k8s.log')).catch(
    () => undefined,
  )
  const lines = (log ?? '').trimEnd().split('\n').slice(-3)
  return lines.join('') === '' ? '' : `\n${node.name}: ${lines.join(`\n${node.name}: `)}`
}

async function nodesOf({ labDir, name }: Pick<LabOptions, 'labDir' | 'name'>, role: LabNode['role']) {
  return (await requireLab(labDir, name)).nodes.filter((node) => node.role === role)
}

async function changeNode(
  labDir: string,
  { name, nodeName }: { name: string; nodeName: string },
  change: Partial<LabNode>,
): Promise<void> {
  const lab = await requireLab(labDir, name)
  const nodes = lab.nodes.map((node) => (node.name === nodeName ? { ...node, ...change } : node))
  await writeLab(labDir, { ...lab, nodes })
}

function lanOf({ name, lan, subnet }: Pick<LabState, 'name' | 'lan' | 'subnet'>): Lan {
  if (!isThere(lan)) throw gone(`the network of ${name}`, name)
  return new Lan({ pid: lan.pid, subnet })
}

function machineId({ name }: LabNode): string {
  return `k8s-lab-${name}`
}

function machineOf(node: LabNode): { id: string; initPid: number } {
  if (!isThere(node.init))
    throw gone(`the machine ${node.name}`, node.name.slice(0, node.name.lastIndexOf('-')))
  return { id: machineId(node), initPid: node.init.pid }
}

function gone(what: string, lab: string): AppError {
  return new AppError(`cannot reach ${what}: it has ended, as all do when the host reboots`, {
    code: 'LAB_GONE',
    remedy: `make it again: k8s lab delete ${lab}, and k8s lab create ${lab}`,
  })
}

function inMachine(
  node: LabNode,
  command: readonly string[],
  acceptedExitCodes: readonly number[] = [],
  input?: string,
) {
  return runCommand({
    command: '/bin/bash',
    args: enterArguments(machineOf(node), command),
    env: machineEnvironment,
    timeoutMs: commandTimeoutMs,
    acceptedExitCodes,
    ...(input !== undefined && { input }),
  })
}

async function host([command = '', ...args]: readonly string[]): Promise<void> {
  await runCommand({ command, args, env: hostEnvironment, timeoutMs: commandTimeoutMs })
}

/** Writes down who it is, and becomes the command, with a pipe as its input that nobody closes. */
const keeperScript = [
  'read -ra stat </proc/$$/stat',
  'echo "$$ ${stat[21]}" >"$1"',
  'exec 0<>"$2"',
  'shift 2',
  'exec "$@"',
].join('\n')

/** Starts what prints "ready PID" and lives as long as its standard input is open. Returns whom it has named. */
async function startKeeper(given: {
  command: readonly string[]
  place: string
  what: string
}): Promise<Keeper> {
  const { command, place, what } = given
  const pipe = `${place}.pipe`
  await host(['mkfifo', '-m', '600', pipe])
  const args = ['-c', keeperScript, 'keeper', keeperFile(place), pipe, ...command]
  const log = logFile(place)
  const pid = await spawnDetached({ command: '/bin/bash', args, env: hostEnvironment }, log)
  const endMs = performance.now() + keeperLimitMs
  for (;;) {
    const said = (await readFileIfPresent(log)) ?? ''
    const readyPid = /^ready (\d+)$/m.exec(said)?.[1]
    if (readyPid !== undefined) return keeperOf(Number(readyPid))
    if (readStat(pid) === undefined || performance.now() > endMs) {
      throw new AppError(`cannot make ${what}: ${said.trim() || 'it says nothing'}`, { code: 'LAB_KEEPER' })
    }
    await sleep(pollMs)
  }
}

async function endKeeper(place: string, what: string): Promise<void> {
  const keeper = await readKeeper(place)
  const endMs = performance.now() + endLimitMs
  if (isThere(keeper)) process.kill(keeper.pid, 'SIGTERM')
  for (; isThere(keeper); await sleep(pollMs)) {
    if (performance.now() > endMs) {
      throw new AppError(
        `cannot end ${what}: the process ${keeper.pid} is still there after ${endLimitMs / 1000} s`,
        { code: 'LAB_DELETE', remedy: 'end it by hand, and delete the lab again' },
      )
    }
  }
}
