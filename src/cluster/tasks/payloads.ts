import { basename, dirname, join } from 'node:path'
import { realpathSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../../base/errors.ts'
import { withoutLinks } from '../../base/files.ts'
import type { Logger } from '../../base/logger.ts'
import type { Paths } from '../../config/paths.ts'
import type { PayloadStatus } from '../../control/messages.ts'
import type { Payload } from '../../payload/payload.ts'
import {
  keepArtifact,
  listPayloads,
  type PayloadPlace,
  recordRun,
  removeOldPayloads,
} from '../../payload/old-payloads.ts'
import type { MachineTaskContext, Task } from './task.ts'

/** A node that has just become Ready starts its pods first; a copy of the artifact is 100 MB. */
const settlingMs = 30_000
/** The last pod of an earlier version may end at any time. */
const intervalMs = 3_600_000

/** Keeps what the way back to the version before needs, and removes older payloads as soon as nothing runs from them. */
export const payloads: Task<MachineTaskContext> = {
  name: 'payloads',
  purpose: 'remove the payloads of earlier versions',
  leaderOnly: false,
  async run({ payload, paths, environment, log, whenReady }, signal) {
    const place = payloadPlace(payload, paths)
    if (place.current === '') return
    await whenReady('node')
    await recordRun(place)
    await sleep(settlingMs, undefined, { signal, ref: false })
    for (;;) {
      await keep(place, environment['K8S_ARTIFACT'], log)
      await remove(place, log)
      await sleep(intervalMs, undefined, { signal, ref: false })
    }
  },
}

/** Where payloads are, with no current one where this process' is elsewhere: in a user's cache, or in a build. */
export function payloadPlace(
  { dir }: Pick<Payload, 'dir'>,
  { payloadsDir, containerdState }: Pick<Paths, 'payloadsDir' | 'containerdState'>,
): PayloadPlace {
  const real = realpathSync(dir)
  const current = dirname(real) === withoutLinks(payloadsDir) ? basename(real) : ''
  return { payloadsDir, current, bundlesDir: join(containerdState, 'io.containerd.runtime.v2.task') }
}

/** What `k8s status` shows of them. */
export async function installedPayloads(payload: Payload, paths: Paths): Promise<readonly PayloadStatus[]> {
  const place = payloadPlace(payload, paths)
  return place.current === '' ? [] : listPayloads(place)
}

async function keep(place: PayloadPlace, artifact: string | undefined, log: Logger): Promise<void> {
  if (artifact === undefined) return
  try {
    const outcome = await keepArtifact({ ...place, artifact })
    if (outcome === 'kept') log.info({ artifact }, 'kept a copy of the artifact for the way back')
  } catch (error) {
    log.warn({ reason: describeError(error) }, 'cannot keep a copy of the artifact for the way back')
  }
}

async function remove(place: PayloadPlace, log: Logger): Promise<void> {
  try {
    for (const { dir, version, sizeBytes } of await removeOldPayloads(place)) {
      log.info({ dir, version, sizeBytes }, 'removed the payload of an earlier version')
    }
  } catch (error) {
    log.warn({ reason: describeError(error) }, 'cannot remove the payloads of earlier versions')
  }
}
