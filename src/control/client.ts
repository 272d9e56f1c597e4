import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorCode } from '../base/errors.ts'
import { exchange } from './exchange.ts'
import { isRunning } from './identity.ts'
import type { DaemonIdentity, DaemonStatus, MessageName, Messages, StopRequest } from './messages.ts'

/** Every answer is a look at what the daemon has in memory, or a question of 2 s to the API server. */
const replyTimeoutMs = 15_000

const lookIntervalMs = 50

export interface ControlClient {
  /** Who serves the socket. */
  identity(): Promise<DaemonIdentity>
  status(): Promise<DaemonStatus>
  /**
   * Resolves when the daemon is gone. `signal` ends the waiting, not the stop, and rejects with its
   * reason. A daemon that was started again meanwhile (by systemd) is another one.
   */
  stop(request: StopRequest, options?: { signal?: AbortSignal }): Promise<void>
}

/**
 * For what only may be done while no daemon runs; `action` is its verb. A daemon that answers in any way, even with a
 * failure, is there.
 */
export async function refuseWhileRunning(
  socket: string,
  action: 'reset' | 'restore' | 'migrate' | 'reset the cluster',
): Promise<void> {
  const isServed = await connectControl(socket)
    .identity()
    .then(
      () => true,
      (error: unknown) => errorCode(error) !== 'DAEMON_NOT_RUNNING',
    )
  if (!isServed) return
  throw new AppError(`cannot ${action}: the daemon runs`, {
    code: 'DAEMON_RUNNING',
    socket,
    remedy: `stop it first: k8s stop${action === 'reset' ? ' --pods' : ''} (or systemctl stop k8s)`,
  })
}

/** Speaks with the daemon that serves the socket, once for each call; see exchange.ts for the errors. */
export function connectControl(socketPath: string): ControlClient {
  const ask = <Name extends MessageName>(message: Name, body: Messages[Name]['request']) =>
    exchange({ socketPath, message, body, timeoutMs: replyTimeoutMs })

  const identity = () => ask('daemon', undefined)

  /** Whether the socket is this daemon's. One that is too busy to answer is there. */
  async function serves({ pid, startTicks }: DaemonIdentity): Promise<boolean> {
    try {
      const current = await identity()
      return current.pid === pid && current.startTicks === startTicks
    } catch (error) {
      return errorCode(error) !== 'DAEMON_NOT_RUNNING'
    }
  }

  return {
    identity,
    status: () => ask('status', undefined),
    async stop(request, { signal } = {}) {
      const daemon = await identity()
      try {
        await ask('stop', request)
      } catch (error) {
        // Somebody else had stopped it already.
        if (errorCode(error) !== 'DAEMON_NOT_RUNNING') throw error
      }
      while ((await serves(daemon)) || isRunning(daemon)) await delay(lookIntervalMs, undefined, { signal })
    },
  }
}
