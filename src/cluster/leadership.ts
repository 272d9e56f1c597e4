import type { Task } from './tasks/task.ts'

/** Which of the servers that share a cluster does what only one may do. */
export interface Leadership {
  /** Runs it whenever this server leads, and ends it when another does; resolves when it is done, or the signal fires. */
  whileLeading(run: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void>
}

/** One server alone leads always. */
export const alone: Leadership = { whileLeading: (run, signal) => run(signal) }

/** Runs a task where, and as long as, it is this server's. */
export function runTask<Context>(
  { leaderOnly, run }: Pick<Task<Context>, 'leaderOnly' | 'run'>,
  { leadership, context, signal }: { leadership: Leadership; context: Context; signal: AbortSignal },
): Promise<void> {
  const begin = (until: AbortSignal) => run(context, until)
  return leaderOnly ? leadership.whileLeading(begin, signal) : begin(signal)
}
