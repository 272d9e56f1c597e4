import { BoundedWriter } from '../base/bounded-writer.ts'
import type { Logger } from '../base/logger.ts'
import type { DaemonOptions } from '../cluster/daemon.ts'
import type { RunOptions } from '../cluster/run.ts'
import type { AgentConfig, AnyConfig, Config, KubeletConfig } from '../config/config.ts'
import type { Environment } from '../config/table/sources.ts'
import { requirePayload } from './command.ts'
import { stopSignals } from './stop-signals.ts'

/** What a daemon of any role runs with. From here on signals ask it to stop, and a bug ends it. */
export async function runOptions(config: AnyConfig, environment: Environment): Promise<DaemonOptions> {
  const signals = stopSignals(environment)
  const [{ createLogger }, { createNotifier }, { openPayload }] = await Promise.all([
    import('../base/logger.ts'),
    import('../base/notify.ts'),
    import('../payload/payload.ts'),
  ])
  const log = createLogger({ format: logFormat(config), level: logLevel(config) })
  const terminal = new BoundedWriter({ fd: 1, tellLeftOut: () => '' })
  endOnBugs(log)
  return {
    ...signals,
    log,
    notify: createNotifier(environment),
    announce: (line) => terminal.write(`${line}\n`),
    payload: openPayload(environment['K8S_PAYLOAD_DIR']),
  }
}

/** Runs a machine with pods until a signal ends it; returns the exit code. Call it when all input is checked. */
export async function runMachine(
  config: Config | AgentConfig | KubeletConfig,
  environment: Environment,
  more: Pick<RunOptions, 'withFacts'> = {},
): Promise<number> {
  requirePayload(environment)
  const options = await runOptions(config, environment)
  const { runCluster } = await import('../cluster/run.ts')
  await runCluster(config, { ...options, ...more, environment })
  return 0
}

function logFormat({ logFormat: wanted }: AnyConfig): 'json' | 'text' {
  if (wanted !== 'auto') return wanted
  return process.stderr.isTTY ? 'text' : 'json'
}

/** klog's habits: from 2 on it says more about what it does, from 5 on it traces. */
function logLevel({ v }: AnyConfig): 'info' | 'debug' | 'trace' {
  if (v >= 5) return 'trace'
  return v >= 2 ? 'debug' : 'info'
}

/** Nothing can be trusted after a bug has shown. The next start ends what this one leaves behind. */
function endOnBugs(log: Logger): void {
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'bug in the daemon')
    process.exit(1)
  })
}
