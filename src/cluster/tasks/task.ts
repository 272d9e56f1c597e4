import type {
  Capability,
  ComponentContext,
  ComponentName,
  MachineContext,
  NodeContext,
} from '../../components/component.ts'
import type { AppError } from '../../base/errors.ts'
import type { Logger } from '../../base/logger.ts'
import type { Board } from '../condition.ts'
import type { Storage } from '../../storage/storage.ts'

/** What the daemon does beside keeping components running. It ends with the daemon; a failure of it ends nothing else. */
export interface Task<Context = NodeTaskContext> {
  readonly name:
    | 'facts'
    | 'images'
    | 'addons'
    | 'snapshots'
    | 'certificates'
    | 'node-address'
    | 'node-role'
    | 'firewall'
    | 'payloads'
    | 'pod-range'
    | 'etcd-care'
    | 'etcd-members'
    | 'encryption'
    | 'join'
    | 'joiners'
    | 'network'
    | 'network-policy'
    | 'metrics'
    | 'servicelb'
    | 'static-pods'
  /** What it does, as the end of "cannot ...". */
  readonly purpose: string
  /** Where several servers share the cluster, one of them does it (leadership.ts). */
  readonly leaderOnly: boolean
  /** Begins with the start of the daemon; resolves when there is nothing to do any more, or the signal fires. */
  readonly run: (context: Context, signal: AbortSignal) => Promise<void>
}

/** What the tasks of a server are given. */
export interface TaskContext extends ComponentContext, Surroundings {
  readonly storage: Storage
  readonly issueCredentials: () => Promise<void>
}

/** What the tasks of any machine with pods are given. */
export interface MachineTaskContext extends MachineContext, Surroundings {
  /** Brings certificates and kubeconfigs in order, as at the start. */
  readonly issueCredentials: () => Promise<void>
}

/** What the tasks of any node of a cluster are given. */
export interface NodeTaskContext extends NodeContext, MachineTaskContext {
  readonly config: NodeContext['config']
}

/** The daemon, as its tasks see it. */
export interface Surroundings {
  /** Names the task in each of its lines. */
  readonly log: Logger
  /** Where it reports the parts that it brings, for `k8s status`. */
  readonly board: Board
  /** The Node has other addresses from now on; what is started from now on is told so. */
  readonly moveNode: (nodeIp: string, otherNodeIp?: string) => void
  /** Ends the daemon, and the pods, since this machine is no part of the cluster any more; that is what the daemon ends with. */
  readonly leave: (reason: AppError) => void
  /** Ends a component and starts it anew; resolves when it is ready, or at once when this role has none of that name. */
  readonly restart: (name: ComponentName, signal: AbortSignal) => Promise<void>
  /** Says that a task provides it from now on. */
  readonly reached: (capability: Capability) => void
  /** Whether it does its work, as far as is known; false when this role has none of that name. */
  readonly isReady: (name: ComponentName) => boolean
  /** Resolves when what provides it has become ready for the first time. */
  readonly whenReady: (capability: Capability) => Promise<void>
}
