/** Promise.all that leaves nothing running behind when it rejects: it waits for the others first. */
export async function allDone<const Tasks extends readonly unknown[]>(
  tasks: Tasks,
): Promise<{ -readonly [Index in keyof Tasks]: Awaited<Tasks[Index]> }> {
  await Promise.allSettled(tasks)
  return Promise.all(tasks)
}
