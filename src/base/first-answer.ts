/** What the first of several answers that answers at all. Rejects with the reason of the last one; `none` is the reason where there is nobody to ask. */
export async function firstAnswer<Asked, Answer>(
  all: readonly Asked[],
  ask: (asked: Asked) => Promise<Answer>,
  none: string,
): Promise<Answer> {
  let reason: unknown = new Error(none)
  for (const asked of all) {
    try {
      return await ask(asked)
    } catch (error) {
      reason = error
    }
  }
  throw reason
}
