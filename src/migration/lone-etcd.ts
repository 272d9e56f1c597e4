import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import { privateDirectoryMode } from '../base/files.ts'
import { silentLogger } from '../base/logger.ts'
import type { Paths } from '../config/paths.ts'
import { disarmDatastore } from '../datastore/disarm.ts'
import { fetchEtcdSnapshot } from '../datastore/etcd-snapshot.ts'
import { Member } from '../datastore/member.ts'
import { hostPath } from '../node/facts/host-path.ts'
import type { Payload } from '../payload/payload.ts'
import { SupervisedProcess } from '../supervisor/supervised-process.ts'
import { unusableData } from './member-data.ts'

/** For a database of some GB on a slow disk, and what an etcd applies of its log. */
const startLimitMs = 600_000
const answerLimitMs = 10_000
const lookIntervalMs = 50
const stopTimeoutMs = 15_000
/** Relative to its directory: etcd takes the name of a socket for a host. */
const sockets = { clients: 'clients:0', peers: 'peers:0' } as const
/** By which it may grow while it is read, beside twice of what it has. */
const growthBytes = 256 * 1024 * 1024

interface LoneEtcdOptions {
  readonly paths: Pick<Paths, 'runDir' | 'processRecordsDir'>
  readonly payload: Pick<Payload, 'bin'>
  /** The data of a member. */
  readonly dataDir: string
  /** It goes on as the only member, whoever the others were. */
  readonly isForced: boolean
}

/**
 * A member that runs for a command, without a network: it is spoken to by a socket that its owner alone can reach, and other
 * members neither find it nor are found. So its whole log is applied, as no look at its files could.
 */
export class LoneEtcd implements AsyncDisposable {
  readonly #process: SupervisedProcess
  readonly #dir: string
  readonly #member: Member

  static async start(options: LoneEtcdOptions): Promise<LoneEtcd> {
    const dir = join(options.paths.runDir, 'lone-etcd')
    await rm(dir, { recursive: true, force: true })
    await mkdir(dir, { recursive: true, mode: privateDirectoryMode })
    const etcd = new LoneEtcd(options, dir)
    try {
      await etcd.#process.start()
      await etcd.#untilAnswers()
      return etcd
    } catch (error) {
      await etcd[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor({ paths, payload, dataDir, isForced }: LoneEtcdOptions, dir: string) {
    const [clients, peers] = [`unix://${sockets.clients}`, `unix://${sockets.peers}`]
    this.#dir = dir
    this.#member = new Member({ address: this.#address })
    this.#process = new SupervisedProcess(
      {
        name: 'etcd',
        command: payload.bin('etcd'),
        args: [
          ...['--name=lone', `--data-dir=${dataDir}`, `--force-new-cluster=${isForced}`],
          ...[`--listen-client-urls=${clients}`, `--advertise-client-urls=${clients}`],
          ...[`--listen-peer-urls=${peers}`, `--initial-advertise-peer-urls=${peers}`],
          ...[`--initial-cluster=lone=${peers}`, '--enable-grpc-gateway=false'],
          // It is only read.
          ...['--quota-backend-bytes=-1', '--log-level=warn', '--log-outputs=stderr'],
        ],
        env: { PATH: hostPath },
        cwd: dir,
        logFormat: 'klog',
        stopTimeoutMs,
        recordDir: paths.processRecordsDir,
      },
      { log: silentLogger },
    )
  }

  get #address(): string {
    return `unix://${join(this.#dir, sockets.clients)}`
  }

  /** How large its database is, and how much of it is in use. */
  async size(): Promise<{ bytes: number; bytesInUse: number }> {
    return this.#member.status(limited())
  }

  /** Puts what is made of a key's newest value, once all that was acknowledged is applied; also where the quota is reached. */
  async change(key: string, make: (value: string | undefined) => string): Promise<void> {
    const value = await this.#try(() => this.#member.get(key, limited()))
    // Of members that are lost nobody would lower the alarm any more; this one raises its own again.
    await disarmDatastore({ address: this.#address })
    await this.#member.put(key, make(value), limited())
  }

  /** Takes all that it has, once all that was acknowledged is applied, into the new file `path`. */
  async save(path: string): Promise<void> {
    await this.#try(() => this.#member.read('/', { isLocal: false, signal: limited() }))
    const { bytes } = await this.size()
    const limitBytes = bytes * 2 + growthBytes
    await fetchEtcdSnapshot({ server: { address: this.#address }, path, limitBytes })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#member[Symbol.dispose]()
    await this.#process.stop(new AbortController().signal)
    await rm(this.#dir, { recursive: true, force: true })
  }

  async #untilAnswers(): Promise<void> {
    // It listens to clients once it leads.
    await this.#try(() => this.#member.status(limited()))
  }

  /** Until it succeeds; not on when the process has ended. */
  async #try<T>(ask: () => Promise<T>): Promise<T> {
    const until = performance.now() + startLimitMs
    for (;;) {
      const { lastFailure } = this.#process.status()
      if (lastFailure !== undefined) throw unusableData(lastFailure.message)
      try {
        return await ask()
      } catch (error) {
        if (performance.now() > until) throw unusableData(describeError(error))
      }
      await sleep(lookIntervalMs)
    }
  }
}

function limited(): AbortSignal {
  return AbortSignal.timeout(answerLimitMs)
}
