/**
 * `--name=value` for each entry, in order; an undefined value leaves its flag out. What a user passes
 * through follows and so wins, as the last of a repeated flag does (lists are appended to).
 */
export function flags(
  values: Readonly<Record<string, string | number | boolean | undefined>>,
  passThrough: readonly string[] = [],
): string[] {
  const own = Object.entries(values).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}=${value}`],
  )
  return [...own, ...passThrough.map((argument) => `--${argument}`)]
}
