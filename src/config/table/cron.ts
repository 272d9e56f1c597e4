/** Times that repeat, as crontab(5) writes them: minute, hour, day of the month, month, day of the week. */
export interface Cron {
  readonly minutes: ReadonlySet<number>
  readonly hours: ReadonlySet<number>
  readonly days: ReadonlySet<number>
  readonly months: ReadonlySet<number>
  readonly weekdays: ReadonlySet<number>
  /** Both kinds of days are given, so either is enough. */
  readonly isEitherDay: boolean
}

interface Field {
  readonly from: number
  readonly to: number
  readonly names?: readonly string[]
}

const fields: readonly Field[] = [
  { from: 0, to: 59 },
  { from: 0, to: 23 },
  { from: 1, to: 31 },
  {
    from: 1,
    to: 12,
    names: ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'],
  },
  // 7 is Sunday too.
  { from: 0, to: 7, names: ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] },
]

/** The longest that a schedule may have to wait: four years, and eight around a century's missing leap day. */
const horizonYears = 8

/** undefined: the text is no schedule, or one that never comes (30 February). */
export function parseCron(text: string): Cron | undefined {
  const parts = text.trim().split(/\s+/)
  if (parts.length !== fields.length) return undefined
  const sets = parts.map((part, index) => parseField(part, fields[index] as Field))
  const [minutes, hours, days, months, weekdays] = sets
  if (!minutes || !hours || !days || !months || !weekdays) return undefined
  if (weekdays.has(7)) weekdays.add(0)
  const isEitherDay = !parts[2]?.startsWith('*') && !parts[4]?.startsWith('*')
  const cron = { minutes, hours, days, months, weekdays, isEitherDay }
  return nextTime(cron, new Date(0)) === undefined ? undefined : cron
}

/** The first time after `after`, in the machine's time zone. */
export function nextTime(cron: Cron, after: Date): Date | undefined {
  const at = new Date(after)
  at.setSeconds(0, 0)
  at.setMinutes(at.getMinutes() + 1)
  const lastYear = at.getFullYear() + horizonYears
  while (at.getFullYear() <= lastYear) {
    if (!cron.months.has(at.getMonth() + 1)) {
      at.setMonth(at.getMonth() + 1, 1)
      at.setHours(0, 0, 0, 0)
    } else if (!isDay(cron, at)) {
      at.setDate(at.getDate() + 1)
      at.setHours(0, 0, 0, 0)
    } else if (!cron.hours.has(at.getHours())) {
      // Not setHours: it would not leave an hour that a change of the clock repeats.
      at.setTime(at.getTime() + (60 - at.getMinutes()) * 60_000)
    } else if (!cron.minutes.has(at.getMinutes())) {
      at.setTime(at.getTime() + 60_000)
    } else return at
  }
  return undefined
}

function isDay({ days, weekdays, isEitherDay }: Cron, at: Date): boolean {
  const [isDayOfMonth, isWeekday] = [days.has(at.getDate()), weekdays.has(at.getDay())]
  return isEitherDay ? isDayOfMonth || isWeekday : isDayOfMonth && isWeekday
}

/** A list of `*`, `A` or `A-B`, each with `/STEP`. */
function parseField(text: string, field: Field): Set<number> | undefined {
  const values = new Set<number>()
  for (const item of text.toLowerCase().split(',')) {
    const [, first, last, stepText] = /^(\*|\w+)(?:-(\w+))?(?:\/(\d{1,2}))?$/.exec(item) ?? []
    if (first === undefined || (first === '*' && last !== undefined)) return undefined
    const step = stepText === undefined ? 1 : Number(stepText)
    const from = first === '*' ? field.from : valueOf(first, field)
    // A/STEP goes on to the end, as in every cron that knows steps.
    const open = first === '*' || (last === undefined && stepText !== undefined)
    const to = open ? field.to : valueOf(last ?? first, field)
    if (from === undefined || to === undefined || from > to || step < 1) return undefined
    for (let value = from; value <= to; value += step) values.add(value)
  }
  return values
}

function valueOf(text: string, { from, to, names }: Field): number | undefined {
  const named = names?.indexOf(text) ?? -1
  if (named >= 0) return named + from
  const value = /^\d{1,2}$/.test(text) ? Number(text) : Number.NaN
  return value >= from && value <= to ? value : undefined
}
