import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { openApi } from '../../api/client.ts'
import { AppError, describeError } from '../../base/errors.ts'
import { joinedFiles } from '../../components/node-access.ts'
import { readNode } from '../../components/node.ts'
import { readNodeRecord, updateNodeRecord } from '../../config/facts.ts'
import { removedAt } from '../join/removed-nodes.ts'
import { refusalOfSkew } from '../join/skew.ts'
import type { NodeTaskContext, Task } from './task.ts'

/** While there is no Node yet. */
const joiningIntervalMs = 1000
/** A Node that is not there after so long is a problem, and not on its way any more. */
const pendingLimitMs = 60_000
const calmIntervalMs = 10 * 60_000
/** Nobody else is asked: what the kubelet's probe has found. */
const kubeletIntervalMs = 5000
/** The kubelet renews its certificate when 70 to 90 % of its life are over (client-go's certificate manager). */
const overdueShare = 0.05
const partName = 'joining'

/** Sees this machine become a Node, tells what would end it (a certificate, versions), and ends with its Node. */
export const join: Task = {
  name: 'join',
  purpose: 'become a Node of the cluster',
  leaderOnly: false,
  async run(context, signal) {
    const { board, paths, log } = context
    await untilNode(context, signal)
    if (readNodeRecord(paths).isJoining === true) {
      updateNodeRecord(paths, { isJoining: undefined })
      log.info({ node: context.config.nodeName }, 'joined the cluster')
    }
    board.forget(partName)
    for (let nextMs = 0; ; ) {
      if (performance.now() >= nextMs) {
        await lookAhead(context, signal)
        nextMs = performance.now() + calmIntervalMs
      }
      await sleep(kubeletIntervalMs, undefined, { signal, ref: false })
      if (!context.isReady('kubelet')) await leaveIfRemoved(context, signal)
    }
  },
}

/** Resolves when its Node is there. */
async function untilNode(context: NodeTaskContext, signal: AbortSignal): Promise<void> {
  const { board, paths, log } = context
  const isNew = readNodeRecord(paths).isJoining === true
  const begunMs = performance.now()
  let isTold = false
  for (;;) {
    const message = await whyNoNode(context, signal)
    if (message === undefined) return
    const isLate = performance.now() - begunMs > pendingLimitMs
    // Of one that has joined before, the kubelet's row says it.
    if (isNew) board.report({ name: partName, state: isLate ? 'degraded' : 'pending', message })
    if (isNew && isLate && !isTold) log.error({ reason: message }, 'this machine has not joined yet')
    isTold ||= isLate
    await sleep(joiningIntervalMs, undefined, { signal, ref: false })
  }
}

/** Ends the daemon of a machine whose Node was removed for good. That servers are away is no reason to. */
async function leaveIfRemoved(context: NodeTaskContext, signal: AbortSignal): Promise<void> {
  const { nodeName } = context.config
  try {
    if ((await readNode(context, signal)) !== undefined) return
    using api = await openApi(context.access, signal)
    const at = await removedAt(nodeName, api)
    if (at === undefined) return
    context.leave(
      new AppError(
        `cannot run this node: ${nodeName} was removed from the cluster (k8s node remove) at ${at}`,
        {
          code: 'NODE_REMOVED',
          remedy:
            'k8s reset removes what is left of the cluster here; after that it can join again, with a token',
        },
      ),
    )
  } catch (error) {
    signal.throwIfAborted()
    context.log.debug({ reason: describeError(error) }, 'cannot ask whether the Node was removed')
  }
}

async function whyNoNode(context: NodeTaskContext, signal: AbortSignal): Promise<string | undefined> {
  try {
    if ((await readNode(context, signal)) !== undefined) return undefined
    await leaveIfRemoved(context, signal)
    return 'its Node is not registered yet'
  } catch (error) {
    signal.throwIfAborted()
    return describeError(error)
  }
}

async function lookAhead(context: NodeTaskContext, signal: AbortSignal): Promise<void> {
  const { board, log } = context
  const problems = [
    await overdue(context),
    await skew(context, signal).catch((error: unknown) => {
      signal.throwIfAborted()
      log.debug({ reason: describeError(error) }, 'cannot ask for the version of the servers')
    }),
  ].filter((problem) => problem !== undefined)
  const message = problems.join('; ')
  if (message === '') return board.forget('node')
  if (board.part('node')?.message !== message) log.error({ reason: message }, 'this node has no future')
  board.report({ name: 'node', state: 'degraded', message })
}

async function overdue({ paths }: NodeTaskContext): Promise<string | undefined> {
  const pem = await readFile(joinedFiles(paths).certificateFile, 'utf8').catch(() => undefined)
  if (pem === undefined) return 'the certificate of the Node is gone'
  const { validFromDate, validToDate } = new X509Certificate(pem)
  const lifeMs = validToDate.getTime() - validFromDate.getTime()
  const leftMs = validToDate.getTime() - Date.now()
  return leftMs > overdueShare * lifeMs
    ? undefined
    : `the certificate of the Node ends at ${validToDate.toISOString()}, and was not renewed`
}

async function skew({ access, payload }: NodeTaskContext, signal: AbortSignal): Promise<string | undefined> {
  using api = await openApi(access, signal)
  const { gitVersion } = (await api.get<{ gitVersion?: string }>('/version')) ?? {}
  if (gitVersion === undefined) return undefined
  const found = refusalOfSkew({ kubelet: payload.version.gitVersion, server: gitVersion })
  return found === undefined ? undefined : `${found.reason}; ${found.remedy}`
}
