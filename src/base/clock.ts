/** A clock that says less was never set: it is from before this software existed. */
export const earliestClock = new Date('2026-11-01T00:00:00Z')
