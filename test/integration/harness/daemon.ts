import { closeSync, openSync, readFileSync } from 'node:fs'
import type { ExecResult, Machine, Running } from './machine.ts'

/** One record of the daemon's log. */
export interface LogRecord {
  readonly time: string
  readonly level: string
  readonly component?: string
  readonly msg: string
  readonly [field: string]: unknown
}

export interface DaemonOptions {
  readonly flags?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Of whoever starts it. */
  readonly umask?: string
}

/** One run of the daemon in a machine; the machine and the pods in it live on when it ends. */
export class Daemon {
  readonly machine: Machine
  readonly #running: Running
  readonly #logPath: string
  #ending: Pick<ExecResult, 'exitCode' | 'signal'> | undefined

  private constructor(machine: Machine, running: Running, logPath: string) {
    this.machine = machine
    this.#running = running
    this.#logPath = logPath
    void running.ended.then((ending) => (this.#ending = ending))
  }

  /** Returns once the process is spawned. Its output goes to a file of its own beside the machine's. */
  static start(machine: Machine, { flags = [], env = {}, umask = '022' }: DaemonOptions = {}): Daemon {
    const logPath = `${machine.directory}/daemon-${Date.now()}.log`
    const log = openSync(logPath, 'a')
    try {
      const command = ['sh', '-c', `umask ${umask}; exec k8s "$@"`, 'k8s', ...flags]
      const running = machine.spawn(command, { env, stdio: ['ignore', log, log] })
      return new Daemon(machine, running, logPath)
    } finally {
      closeSync(log)
    }
  }

  /** How it ended; undefined while it runs. */
  get ending(): Pick<ExecResult, 'exitCode' | 'signal'> | undefined {
    return this.#ending
  }

  get ended(): Promise<Pick<ExecResult, 'exitCode' | 'signal'>> {
    return this.#running.ended
  }

  /** As the machine numbers it. Throws when it does not run. */
  get pid(): number {
    const hostPid = this.#running.hostPid()
    if (hostPid === undefined) throw new Error(`the daemon does not run\n${this.logTail()}`)
    const numbers = /^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${hostPid}/status`, 'utf8'))?.[1]
    return Number(numbers?.split(/\s+/).at(-1))
  }

  /** Everything it wrote, of the launcher too. */
  log(): string {
    return readFileSync(this.#logPath, 'utf8')
  }

  logTail(lines = 40): string {
    return this.log().trimEnd().split('\n').slice(-lines).join('\n')
  }

  /** The lines that are records. */
  records(): LogRecord[] {
    return this.log()
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as LogRecord)
  }

  /** Signals it and returns at once. Nothing happens when it has ended. */
  signal(signal: NodeJS.Signals): void {
    this.#running.kill(signal)
  }

  /** SIGTERM, unless another is given; resolves when it is gone. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Pick<ExecResult, 'exitCode' | 'signal'>> {
    this.signal(signal)
    return this.ended
  }
}
