import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, symlinkSync } from 'node:fs'
import {
  type ExecOptions,
  type ExecResult,
  Machine,
  machineScript,
  repository,
  type Running,
} from './machine.ts'
import { processesOf } from './processes.ts'
import { waitFor } from './wait.ts'

const bootTimeoutMs = 120_000
const makeRootTimeoutMs = 15 * 60_000

/** What a small server has: systemd, and what the README asks for. */
const packages = ['systemd', 'systemd-sysv', 'dbus', 'iproute2', 'iptables', 'nftables', 'kmod']

/** Settings of systemd-nspawn (docs/ENVIRONMENT.md of systemd) for a container that runs containers. */
const nspawnEnvironment = { SYSTEMD_NSPAWN_API_VFS_WRITABLE: 'yes', SYSTEMD_SECCOMP: '0' }

/** A machine whose pid 1, from the point of view of its commands, is a systemd that has booted from a root of its own. */
export class BootedMachine implements AsyncDisposable {
  readonly machine: Machine
  /** The root file system, on the host. */
  readonly root: string
  readonly #systemdPid: number
  readonly #nspawn: Running

  private constructor(machine: Machine, root: string, systemdPid: number, nspawn: Running) {
    this.machine = machine
    this.root = root
    this.#systemdPid = systemdPid
    this.#nspawn = nspawn
  }

  /** `prepare` gets the root before the boot. */
  static async boot({
    name,
    prepare,
  }: {
    name: string
    prepare: (root: string) => void
  }): Promise<BootedMachine> {
    const archive = rootArchive()
    const machine = await Machine.create({ name, program: '' })
    try {
      const root = `${machine.directory}/root`
      mkdirSync(root)
      execFileSync('tar', ['--extract', '--file', archive, '--directory', root, '--exclude=./dev/*'])
      // Its settings are the whole host's.
      symlinkSync('/dev/null', `${root}/etc/systemd/system/systemd-sysctl.service`)
      prepare(root)
      const nspawn = machine.spawn(
        [
          ...[
            'systemd-nspawn',
            '--directory',
            root,
            '--register=no',
            '--keep-unit',
            `--hostname=${name}`,
            '--capability=all',
          ],
          ...['--bind=/sys/fs/cgroup', '--bind=/dev/kmsg', '--console=passive', '--boot'],
        ],
        { env: nspawnEnvironment, stdio: ['ignore', 'ignore', 'pipe'] },
      )
      const systemdPid = await findSystemd(machine, nspawn)
      const booted = new BootedMachine(machine, root, systemdPid, nspawn)
      await booted.#finishBoot()
      return booted
    } catch (error) {
      await machine[Symbol.asyncDispose]()
      throw error
    }
  }

  async #finishBoot(): Promise<void> {
    await waitFor(
      'systemd has booted',
      async () => {
        const { stdout } = await this.exec(['systemctl', 'is-system-running'], { check: false })
        return ['running', 'degraded'].includes(stdout.trim())
      },
      { timeoutMs: bootTimeoutMs },
    )
    // nspawn has mounted a /proc of its own.
    await this.exec(['bash', '-s', 'shield_sysctls'], { stdin: readFileSync(machineScript) })
  }

  /** Runs a command as if from a login on the machine. */
  exec(command: readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return this.machine.exec(
      ['nsenter', `--target=${this.#systemdPid}`, '--all', '--wdns=/', '--', ...command],
      options,
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#nspawn[Symbol.asyncDispose]()
    await this.machine[Symbol.asyncDispose]()
  }
}

/** The one process that nspawn has started. */
async function findSystemd(machine: Machine, nspawn: Running): Promise<number> {
  let words = ''
  nspawn.child.stderr?.on('data', (chunk) => (words += String(chunk)))
  return waitFor(
    'systemd-nspawn has started systemd',
    () => {
      const processes = processesOf(machine)
      const outer = processes.find(({ name }) => name === 'systemd-nspawn')
      return processes.find(({ name, parentPid }) => name === 'systemd' && parentPid === outer?.pid)?.pid
    },
    {
      giveUp: () =>
        nspawn.child.exitCode === null ? undefined : new Error(`systemd-nspawn has ended: ${words}`),
    },
  )
}

/** Made once by mmdebstrap, from the packages of the host's own release, and kept below build/. */
function rootArchive(): string {
  for (const [command, packageName] of [
    ['mmdebstrap', 'mmdebstrap'],
    ['systemd-nspawn', 'systemd-container'],
  ] as const) {
    if (!existsSync(`/usr/bin/${command}`)) {
      throw new Error(`cannot boot systemd here: ${command} is missing (apt-get install ${packageName})`)
    }
  }
  const release = /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'bookworm'
  const archive = `${repository}/build/systemd-root-${release}.tar`
  if (existsSync(archive)) return archive
  const unfinished = `${archive}.${process.pid}.tmp.tar`
  execFileSync('mmdebstrap', ['--variant=minbase', `--include=${packages.join(',')}`, release, unfinished], {
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: makeRootTimeoutMs,
  })
  renameSync(unfinished, archive)
  return archive
}
