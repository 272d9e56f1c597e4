import type { Logger } from '../base/logger.ts'
import { componentNames } from '../components/component.ts'
import type { Paths } from '../config/paths.ts'
import type { Payload } from '../payload/payload.ts'
import { endLeftovers } from '../supervisor/leftovers.ts'

/** The components of a daemon that died have lost their datastore, and cannot end in good order. */
const stopTimeoutMs = 2_000

/** Ends what a daemon that died left running. */
export async function endFormerProcesses(
  paths: Paths,
  { payload, ...options }: { payload: Payload; log: Logger; signal?: AbortSignal },
): Promise<void> {
  await endLeftovers({
    ...options,
    programDirs: [paths.payloadsDir, payload.dir],
    recordDir: paths.processRecordsDir,
    order: componentNames.toReversed(),
    stopTimeoutMs,
  })
}
