import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, describeError, errorCode } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Notifier } from '../base/notify.ts'
import type { JoinSettings } from '../config/settings/join.ts'
import { usageError } from '../config/table/setting.ts'
import type { Board } from './condition.ts'
import { startExtensionMs } from './daemon.ts'
import {
  type BootstrapToken,
  type JoinRole,
  type JoinToken,
  parseBootstrapToken,
  parseCaHash,
  parseToken,
} from './join/token.ts'
import { feedWatchdog } from './watchdog.ts'

/** Between two tries of the servers, one after the other. */
const defaultRetryMs = 2_000
/**
 * What may be wrong for so long, and become right by itself: a token that was just made is not known yet, and a cluster-info that has
 * changed is signed anew once kube-controller-manager leads, which may have to wait for the lease of the one before.
 */
const patienceMs: Readonly<Record<string, number>> = { JOIN_TOKEN_UNKNOWN: 30_000, JOIN_SIGNATURE: 60_000 }
/** A token has less than 200 bytes. */
const tokenFileLimitBytes = 4096
const partName = 'joining'
/** What no second try makes right. */
const finalCodes = ['JOIN_REFUSED', 'JOIN_CLOCK', 'USAGE']

export interface NewcomerOptions {
  readonly log: Logger
  readonly notify: Notifier
  readonly board: Pick<Board, 'report' | 'forget'>
  /** Ends the wait for a server. */
  readonly signal: AbortSignal
  readonly retryMs?: number
  /** In place of what each of such reasons is given. */
  readonly patienceMs?: number
}

export function withoutToken(role: JoinRole): string {
  return `it needs a token, which "k8s token create --role=${role}" prints on a server: give it with --token-file or K8S_TOKEN`
}

/** Each once, in the order in which they are tried: those of the settings, and those that were learnt. Throws USAGE for none. */
export function serversToAsk(...lists: readonly (readonly string[] | undefined)[]): string[] {
  const servers = [...new Set(lists.flatMap((list) => list ?? []))]
  if (servers.length > 0) return servers
  throw usageError('cannot join a cluster without a server of it: name one with --server=https://HOST:6443')
}

export interface GivenToken {
  readonly token: BootstrapToken
  readonly caHash: string
  /** Of a server's. */
  readonly key?: string
}

/** What the settings say to join with. */
export async function givenToken(
  { token, tokenFile, caHash }: Partial<JoinSettings>,
  wanted: JoinRole,
): Promise<GivenToken | undefined> {
  const text = token ?? (tokenFile === undefined ? undefined : await readToken(tokenFile, wanted))
  if (text === undefined) return undefined
  const hash = caHash === undefined ? undefined : parseCaHash(caHash)
  // ID.SECRET, as kubeadm has it.
  if (wanted === 'agent' && hash !== undefined && text.trim().length === 23)
    return { token: parseBootstrapToken(text), caHash: hash }
  const { role, caHash: own, key, id, secret } = parseToken(text)
  if (role !== wanted) throw usageError(`cannot join with this token: ${ofOtherRole[role]}`)
  if (hash !== undefined && hash !== own)
    throw usageError(`cannot use --ca-hash=sha256:${hash}: the token is for sha256:${own}; leave it away`)
  return { token: { id, secret }, caHash: own, ...(key !== undefined && { key }) }
}

const ofOtherRole: Readonly<Record<JoinToken['role'], string>> = {
  server: 'it is one for a server, which an agent must not have; make one with k8s token create --role=agent',
  agent: 'it is one for an agent; make one with k8s token create --role=server',
}

/** A file that has gone since this machine has joined is not missed. */
async function readToken(path: string, role: JoinRole): Promise<string> {
  try {
    const text = await readFile(path, 'utf8')
    return text.slice(0, tokenFileLimitBytes)
  } catch (cause) {
    throw new AppError(
      `cannot read the token in ${path}`,
      { code: 'JOIN_TOKEN', remedy: withoutToken(role) },
      { cause },
    )
  }
}

/**
 * What the first server answers that is asked; they are tried for ever, and `k8s status` says why. What cannot become right by itself is
 * thrown: JOIN_REFUSED, JOIN_CLOCK, and after a while JOIN_TOKEN_UNKNOWN and JOIN_SIGNATURE. undefined when the signal ends the wait.
 */
export async function untilFound<Found>(
  servers: readonly string[],
  look: (server: string) => Promise<Found>,
  options: NewcomerOptions,
): Promise<Found | undefined> {
  const { log, notify, board, signal } = options
  const { retryMs = defaultRetryMs } = options
  const begunMs = performance.now()
  let told = ''
  let isToldReady = false
  using waiting = new DisposableStack()
  while (!signal.aborted) {
    const reasons: string[] = []
    let isRefusedSoon = false
    for (const server of servers) {
      try {
        const found = await look(server)
        board.forget(partName)
        log.info({ server }, 'found the cluster')
        return found
      } catch (error) {
        if (signal.aborted) return undefined
        const code = errorCode(error) ?? ''
        const patience = code in patienceMs ? (options.patienceMs ?? patienceMs[code]) : undefined
        if (finalCodes.includes(code) || performance.now() - begunMs >= (patience ?? Infinity)) throw error
        reasons.push(`${server}: ${shortReason(error)}`)
        isRefusedSoon ||= patience !== undefined
      }
    }
    const reason = reasons.join('; ')
    board.report({ name: partName, state: 'degraded', message: `waiting for a server: ${reason}` })
    if (reason !== told) {
      log.warn({ reason }, 'waiting for a server of the cluster; it is tried again')
      notify.extendTimeout(startExtensionMs)
      notify.status(`waiting for a server: ${reason}`)
    }
    // Nobody who starts a machine waits for another one; from then on the watchdog wants to be fed.
    if (!isRefusedSoon && !isToldReady) {
      isToldReady = true
      notify.ready()
      waiting.use(feedWatchdog({ notify, storage: { ping: async () => {} }, log }))
    }
    told = reason
    await sleep(retryMs, undefined, { signal, ref: false }).catch(() => {})
  }
  return undefined
}

function shortReason(error: unknown): string {
  return error instanceof Error && error.cause !== undefined ? shortReason(error.cause) : describeError(error)
}
