import { Exposition, processMetrics } from '../base/exposition.ts'
import type { Logger } from '../base/logger.ts'
import { metricsType, TextServer } from '../base/text-server.ts'
import type { Board } from './condition.ts'

/** /metrics of the daemon of a server or agent, and /livez: it answers, so it lives. */
export function nodeMetrics({ board, log }: { board: Board; log: Logger }): TextServer {
  return new TextServer({
    log,
    answer(path) {
      switch (path) {
        case '/metrics':
          return { status: 200, text: render(board), type: metricsType }
        case '/livez':
          return { status: 200, text: 'ok\n' }
        default:
          return undefined
      }
    },
  })
}

function render(board: Board): string {
  const metrics = new Exposition()
  for (const tell of board.metrics.values()) tell(metrics)
  processMetrics(metrics)
  return metrics.text
}
