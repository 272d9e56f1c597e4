import type { Surroundings, Task } from './tasks/task.ts'

/** Tasks that lack nothing any more but the daemon around them. */
export function boundTasks<Context extends object>(
  tasks: readonly Task<Context & Surroundings>[],
  context: Context,
): Task<Surroundings>[] {
  return tasks.map((task) => ({
    ...task,
    run: (surroundings, signal) => task.run({ ...context, ...surroundings }, signal),
  }))
}
