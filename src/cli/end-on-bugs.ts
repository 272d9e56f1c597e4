import type { Logger } from '../base/logger.ts'

/** Nothing can be trusted after a bug has shown. The next start ends what this one leaves behind. */
export function endOnBugs(log: Logger): void {
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'bug in the daemon')
    process.exit(1)
  })
}
