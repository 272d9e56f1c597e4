import { beforeEach } from 'vitest'

/** Prints what one would look at first, the daemon's last lines above all, for each test of the file that fails. */
export function reportFailures(current: () => { report(): Promise<string> } | undefined): void {
  beforeEach(({ onTestFailed }) => {
    onTestFailed(async ({ task }) => {
      console.error(`--- ${task.name}\n${(await current()?.report()) ?? 'there is no cluster'}`)
    })
  })
}
