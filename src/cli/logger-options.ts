import type { AnyConfig } from '../config/config.ts'

type LogSettings = Pick<AnyConfig, 'logFormat' | 'v'>

/** What a daemon's logger is made with. */
export function loggerOptions(config: LogSettings) {
  return { format: logFormat(config), level: logLevel(config) }
}

function logFormat({ logFormat: wanted }: LogSettings): 'json' | 'text' {
  if (wanted !== 'auto') return wanted
  return process.stderr.isTTY ? 'text' : 'json'
}

/** klog's habits: from 2 on it says more about what it does, from 5 on it traces. */
function logLevel({ v }: LogSettings): 'info' | 'debug' | 'trace' {
  if (v >= 5) return 'trace'
  return v >= 2 ? 'debug' : 'info'
}
