import type { Paths } from '../config/paths.ts'
import type { Payload } from '../payload/payload.ts'
import type { ReplacementKind } from '../snapshot/replacement.ts'
import type { Environment } from '../config/table/sources.ts'

interface Held extends Disposable {
  readonly payload: Payload
  /** What another command had decided, and was interrupted in. */
  readonly finished: ReplacementKind | undefined
}

/**
 * Holds a data directory for a command that replaces what is in it: no daemon runs, none starts meanwhile, and what one has
 * left running is ended. `action` is a verb.
 */
export async function holdStopped(
  paths: Paths,
  environment: Environment,
  action: 'migrate' | 'reset the cluster',
): Promise<Held> {
  const [
    { refuseWhileRunning },
    { openPayload },
    { holdDataDirectory },
    { endFormerProcesses },
    { silentLogger },
  ] = await Promise.all([
    import('../control/client.ts'),
    import('../payload/payload.ts'),
    import('../snapshot/replacement.ts'),
    import('../cluster/former-processes.ts'),
    import('../base/logger.ts'),
  ])
  const payload = openPayload(environment['K8S_PAYLOAD_DIR'])
  await refuseWhileRunning(paths.controlSocket, action)
  const held = await holdDataDirectory(paths, payload.sqliteAddon)
  try {
    // Once more: one that has started since then has not seen that the data directory is held.
    await refuseWhileRunning(paths.controlSocket, action)
    await endFormerProcesses(paths, { payload, log: silentLogger })
  } catch (error) {
    held[Symbol.dispose]()
    throw error
  }
  return { payload, finished: held.finished, [Symbol.dispose]: () => held[Symbol.dispose]() }
}
