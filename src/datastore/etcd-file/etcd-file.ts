import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

import { AppError, describeError } from '../../base/errors.ts'
import { type PipedProcess, runCommand, spawnPiped } from '../../supervisor/spawn.ts'
import type { DumpedVersion } from '../log/dump.ts'
import type { LoggedLease } from '../log/batch.ts'
import {
  type StreamRecord,
  decodeStream,
  encodeEnd,
  encodeHead,
  encodeLease,
  encodeVersion,
} from './stream.ts'

/** Records are handed to the program in blocks of about this size. */
const blockBytes = 256 * 1024
/** What a single etcd that has written that much would have: its index only ever grows. */
const term = 2

interface EtcdFileOptions {
  /** The program etcd-file. */
  readonly program: string
  /** The file of etcd. */
  readonly path: string
}

/** All that a datastore holds, as a Dump of a database has it. */
export interface WholeState {
  /** -1 when nothing was ever compacted. */
  readonly compactedRevision: number
  readonly revision: number
  versions(): Iterable<DumpedVersion>
  leases(): readonly LoggedLease[]
}

/**
 * Writes a dump as `etcdctl snapshot save` would: the database file of etcd 3.7 with its SHA-256 behind.
 * `path` must not exist; after a failure it does not.
 */
export async function writeEtcdFile(dump: WholeState, { program, path }: EtcdFileOptions): Promise<void> {
  const running = await start(program, ['write', path])
  try {
    await Promise.all([pipeline(Readable.from(blocks(dump)), running.stdin), running.finished])
  } catch (thrown) {
    running.kill()
    // A broken pipe is only where the program's own failure shows.
    await running.finished.catch((cause: unknown) => {
      throw failure('write', path, cause)
    })
    throw failure('write', path, thrown)
  }
}

/** The records of a file of etcd: the head, the versions in their order, the leases, the end. */
export async function* readEtcdFile({
  program,
  path,
  wantsDigest,
}: EtcdFileOptions & { wantsDigest: boolean }): AsyncGenerator<StreamRecord> {
  const running = await start(program, [wantsDigest ? 'read' : 'read-without-digest', path])
  running.stdin.end()
  let isWhole = false
  try {
    // The program's reason counts, not that the stream is cut: it is asked first.
    for await (const record of decodeStream(running.stdout)) {
      if (record.kind === 'end') await running.finished
      yield record
    }
    isWhole = true
  } catch (thrown) {
    running.kill()
    await running.finished.catch((cause: unknown) => {
      throw failure('read', path, cause)
    })
    throw failure('read', path, thrown)
  } finally {
    if (!isWhole) running.kill()
  }
}

/** Whom the data of a member know as members; that member must not run. */
export async function readMembers({ program, path }: EtcdFileOptions): Promise<StoredMember[]> {
  try {
    const args = ['members', path]
    const { stdout } = await runCommand({ command: program, args, env: runtime, timeoutMs: membersLimitMs })
    const found = JSON.parse(stdout) as readonly Printed[]
    return found.map(({ id, name, peerURLs, clientURLs, isLearner }) => ({
      ...{ id: BigInt(`0x${id}`), name, isLearner },
      ...{ peerUrls: peerURLs ?? [], clientUrls: clientURLs ?? [] },
    }))
  } catch (thrown) {
    throw failure('read', path, thrown)
  }
}

export interface StoredMember {
  readonly id: bigint
  readonly name: string
  readonly peerUrls: readonly string[]
  readonly clientUrls: readonly string[]
  readonly isLearner: boolean
}

/** As the program prints it. */
interface Printed {
  readonly id: string
  readonly name: string
  readonly peerURLs: readonly string[] | null
  readonly clientURLs: readonly string[] | null
  readonly isLearner: boolean
}

/** All that it does is done on one processor at a time; more of Go's heap is not faster. */
const runtime = { GOMAXPROCS: '2', GOTRACEBACK: 'none' }
/** It looks whether the file is sound before. */
const membersLimitMs = 600_000

function start(program: string, args: readonly string[]): Promise<PipedProcess> {
  return spawnPiped({ command: program, args, env: runtime })
}

/** The dump as a stream, in blocks of many records. */
function* blocks(dump: WholeState): Generator<Buffer> {
  const { compactedRevision, revision } = dump
  let block = [encodeHead({ compactedRevision, consistentIndex: revision, term, isAuthEnabled: false })]
  let bytes = (block[0] as Buffer).length
  let versions = 0
  for (const version of dump.versions()) {
    versions++
    const record = encodeVersion(version)
    block.push(record)
    bytes += record.length
    if (bytes < blockBytes) continue
    yield Buffer.concat(block, bytes)
    block = []
    bytes = 0
  }
  const leases = dump.leases()
  for (const lease of leases) block.push(encodeLease(lease))
  yield Buffer.concat([...block, encodeEnd({ versions, leases: leases.length })])
}

/** bbolt checks a file in goroutines of its own, whose panics nobody can catch: they end the program. */
const crash = /^(?:panic: |unexpected fault|fatal error: )/
/** Of a fault Go tells so much that its beginning is not kept. */
const crashDump = /\bgoroutine \d+ |\bruntime\.goexit\(/

function failure(verb: 'read' | 'write', path: string, cause: unknown): AppError {
  const reason = describeError(cause)
  const [firstLine = ''] = reason.split('\n', 1)
  const told = crash.test(reason)
    ? `it is damaged: ${firstLine.replace(crash, '')}`
    : crashDump.test(reason)
      ? 'it is damaged: its pages refer to what is not there'
      : reason
  return new AppError(`cannot ${verb} the etcd file ${path}: ${told}`, { code: 'ETCD_FILE', path })
}
