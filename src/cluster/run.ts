import { once } from 'node:events'
import { type AppError, describeError } from '../base/errors.ts'
import type { Capability, Component, ComponentName } from '../components/component.ts'
import type { AgentConfig, Config, KubeletConfig } from '../config/config.ts'
import { paths as pathsOf } from '../config/paths.ts'
import { serveControl } from '../control/server.ts'
import { UsageSampler } from '../supervisor/usage.ts'
import { AddonMemory } from './addon-memory.ts'
import { Readiness, TaskGroup } from './background.ts'
import { Board } from './condition.ts'
import { type DaemonOptions, extendStart, prepareProcess } from './daemon.ts'
import { prepareDirectories } from './directories.ts'
import { endFormerProcesses } from './former-processes.ts'
import { runTask } from './leadership.ts'
import { restartComponent, startComponents, stopComponents } from './lifecycle.ts'
import type { Plan } from './plan.ts'
import { stopPods } from './pods.ts'
import { isNewcomer, prepareRole } from './prepare.ts'
import type { PrepareOptions } from './prepare-node.ts'
import { clusterStatus } from './status.ts'
import { StopRequests } from './stop-requests.ts'
import { startReport, tellCondition } from './telling.ts'
import { feedWatchdog } from './watchdog.ts'

/** Tasks end at once when they are told to; for one that waits for a disk. */
const taskEndLimitMs = 10_000

export interface RunOptions extends DaemonOptions {
  /** The variables of the process. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Of a server: its settings with what is fixed in the cluster that it joins. */
  readonly withFacts?: PrepareOptions['withFacts']
}

/**
 * Runs the cluster until `stop` fires, somebody asks for it at the control socket, or the storage is lost for good.
 * Returns when nothing runs any more but the pods; throws what ended it otherwise, and before that what kept it from
 * starting or, where there is no such thing, from stopping.
 */
export async function runCluster(
  config: Config | AgentConfig | KubeletConfig,
  options: RunOptions,
): Promise<void> {
  const { payload, log, notify } = options
  const startedAt = new Date()
  const paths = pathsOf(config)
  const requests = new StopRequests({
    ...{ signalled: options.stop, hurried: options.hurry },
    endPods: config.stopPods,
  })
  const failed = new AbortController()
  const board = new Board()
  let components: readonly Component[] = []
  let plan: Plan | undefined
  const addonMemory = new AddonMemory()
  using usage = new UsageSampler({
    pids: () => components.flatMap((component) => component.status().pid ?? []),
  })

  prepareProcess()
  await prepareDirectories(paths, log, { isServer: config.role === 'server' && !isNewcomer(config, paths) })
  // Before anything is opened: a restore, or a second daemon, finds this one by its socket.
  await using _control = await serveControl({
    path: paths.controlSocket,
    log,
    handlers: {
      status: () =>
        clusterStatus({
          ...{ role: config.role, config, paths, payload, startedAt, components, board, usage, addonMemory },
          access: plan?.access,
        }),
      stop: (request) => requests.ask(request),
    },
  })
  const prepared = await prepareRole(config, { ...options, paths, board, signal: requests.asked })
  if (prepared === undefined) return
  const { moveNode } = prepared
  plan = prepared.plan
  components = plan.components
  void plan.storage.failed.then((error) => failed.abort(error))
  await endFormerProcesses(paths, { payload, log, signal: requests.hurried })
  const end = AbortSignal.any([requests.asked, failed.signal])
  const errors: unknown[] = []
  const leave = (reason: AppError) => {
    if (requests.asked.aborted) return
    errors.unshift(reason)
    requests.ask({ pods: true })
  }
  using _watchdog = feedWatchdog({ notify, storage: plan.storage, log })
  try {
    await serve(plan, { ...options, end, board, moveNode, leave })
  } catch (error) {
    // Whoever asked for the end does not want to hear that the start was not finished.
    if (!end.aborted) errors.push(error)
  }
  board.isStopping = true
  notify.stopping()
  // Without its storage kube-apiserver can do nothing but wait.
  const hurry = AbortSignal.any([requests.hurried, failed.signal])
  await stopCluster(plan, { ...options, hurry, requests }).catch((error: unknown) => errors.push(error))
  const [first, ...later] = failed.signal.aborted ? [failed.signal.reason, ...errors] : errors
  for (const error of later) log.error({ reason: describeError(error) }, 'and then')
  if (first !== undefined) throw first
}

interface ServeOptions extends RunOptions {
  /** Aborted when it shall end. */
  readonly end: AbortSignal
  readonly board: Board
  readonly moveNode: (nodeIp: string, otherNodeIp?: string) => void
  readonly leave: (reason: AppError) => void
}

/** From the start of the first component to the end: what is running then, the caller stops. */
async function serve(plan: Plan, options: ServeOptions): Promise<void> {
  const { components, tasks, leadership, context } = plan
  const { log, notify, end, board } = options
  const over = new AbortController()
  const signal = AbortSignal.any([end, over.signal])
  const work = new TaskGroup({ log, signal })
  const readiness = new Readiness(signal)
  const command =
    context.host.command('k8s') === undefined ? (context.environment['K8S_ARTIFACT'] ?? 'k8s') : 'k8s'
  const isServer = components.some(({ name }) => name === 'kube-apiserver')
  const report = startReport({ ...options, paths: context.paths, command, isServer })
  try {
    const find = (name: ComponentName) => components.find((candidate) => candidate.name === name)
    const taskContext = {
      ...{ board, moveNode: options.moveNode, leave: options.leave },
      whenReady: (capability: Capability) => readiness.of(capability),
      isReady: (name: ComponentName) => find(name)?.status().state === 'ready',
      restart: async (name: ComponentName, until: AbortSignal) => {
        const component = find(name)
        if (component === undefined) return
        const onFailure = (reason: string) => {
          board.degraded(component, reason)
          log.error({ component: name, reason }, 'cannot be started anew; it is tried again')
        }
        await restartComponent(component, { signal: until, onFailure })
        board.ready(component)
      },
      reached: (capability: Capability) => readiness.reached(capability),
    }
    for (const task of tasks) {
      const { name, purpose } = task
      const given = { ...taskContext, log: log.child({ task: name }) }
      work.begin(
        purpose,
        () => runTask(task, { leadership, context: given, signal }),
        (message) =>
          message === undefined ? board.forget(name) : board.report({ name, state: 'degraded', message }),
      )
    }
    const late = Promise.withResolvers<void>()
    const start = startComponents({
      components,
      ofTasks: new Map([['archives', readiness.of('archives')]]),
      signal,
      onReady(component) {
        board.ready(component)
        report.ready(component.name)
        for (const capability of component.provides) readiness.reached(capability)
      },
      onDegraded(component, reason) {
        board.degraded(component, reason)
        log.error({ component: component.name, reason }, 'not ready; it is tried again')
        report.degraded(component.name, reason)
        late.resolve()
      },
    })
    work.begin('tell how the cluster is', () => tellCondition({ ...options, components, signal, report }))
    const away = plan.whenAway?.(signal)
    const up = away && Promise.race([readiness.of('node'), late.promise, away])
    await extendStart(notify, Promise.all([start.serving, up]))
    notify.ready()
    if (!end.aborted) await once(end, 'abort')
  } finally {
    over.abort()
    await work.settled(taskEndLimitMs)
  }
}

async function stopCluster(
  { components, context: { paths }, runtimeSocket }: Plan,
  { payload, log, hurry, requests }: RunOptions & { requests: StopRequests },
): Promise<void> {
  const isOwnRuntime = runtimeSocket === paths.containerdSocket
  log.info({ pods: requests.endPods ? 'end' : 'stay' }, 'stopping')
  await stopComponents({
    components,
    hurry,
    onStop: ({ name }, tookMs) =>
      log.info({ component: name, tookMs: Math.round(tookMs) }, 'component stopped'),
    afterLosing: {
      node: async () =>
        requests.endPods
          ? stopPods({ ...{ payload, runtimeSocket, isOwnRuntime }, log, signal: hurry })
          : undefined,
    },
  })
}
