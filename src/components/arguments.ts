import type { Config } from '../config/config.ts'

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

/**
 * Of several servers one does the work of the controllers, and one that of the scheduler: component-base/config/options,
 * BindLeaderElectionFlags. Twice the usual times, so that a slow disk of etcd's does not take it away from who has it.
 */
export function leaderElection({ serverMode }: Pick<Config, 'serverMode'>): Record<string, string | boolean> {
  if (serverMode === 'single') return { 'leader-elect': false }
  return {
    'leader-elect': true,
    'leader-elect-lease-duration': '30s',
    'leader-elect-renew-deadline': '20s',
    'leader-elect-retry-period': '4s',
  }
}
