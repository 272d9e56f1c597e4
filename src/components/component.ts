/*
 *            init          start          probe answers
 *    new ---------> init ---------> start ---------> ready
 *                                     ^                |
 *                                     |  the process   |
 *                                     +---- ended -----+        stop: from every state, once or often
 */
import type { AppError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Config, KubeletConfig, MachineConfig, NodeConfig } from '../config/config.ts'
import type { Paths } from '../config/paths.ts'
import type { NodeChoices } from '../node/facts/choices.ts'
import type { HostFacts } from '../node/facts/host.ts'
import type { Payload } from '../payload/payload.ts'
import type { KubeletPkiFiles } from '../pki/kubelet.ts'
import type { PkiFiles } from '../pki/pki.ts'
import type { RecordListener } from '../supervisor/logs.ts'
import type { ProcessStatus } from '../supervisor/supervised-process.ts'
import type { NodeAccess, ServerAccess } from './node-access.ts'

/**
 * What a component needs of others, without their names: whoever provides it may change with the role.
 *
 *    member    this server's own member of etcd
 *    storage   etcd's API with the cluster's objects
 *    cri       the container runtime's socket
 *    api       the Kubernetes API
 *    node      this machine's Node, and the kubelet that keeps it
 *    images    what our own pods run, in the container runtime
 *    archives  what pods may run of the archives that were there at the start, in the container runtime
 *    joiners   machines that may join, or have: nothing is kept for them before
 */
export type Capability = 'member' | 'storage' | 'cri' | 'api' | 'node' | 'images' | 'archives' | 'joiners'

/** What the supervisor starts, asks and stops. Which there are, and in what order, is cluster/plan.ts' alone. */
export interface Component {
  readonly name: ComponentName
  /** What must be there before this one starts. */
  readonly needs: readonly Capability[]
  /** What is there when this one is ready. */
  readonly provides: readonly Capability[]
  /**
   * When it cannot be started: `fatal` ends the start of the daemon, as nothing works without it; `degraded` goes on
   * trying and is shown as such, while the rest serves.
   */
  readonly policy: 'fatal' | 'degraded'
  /** How long `ready` may take before the policy applies, ms; Infinity for what waits for others than this machine. */
  readonly readyTimeoutMs: number
  /** How long `stop` lets it end by itself before it is killed, ms. */
  readonly stopTimeoutMs: number
  /** Prepares files; may fail; may be called again. */
  init(): Promise<void>
  /** Returns when the process (or worker) runs. */
  start(signal: AbortSignal): Promise<void>
  /** Returns when it does what its user would ask of it. May be called again. */
  ready(signal: AbortSignal): Promise<void>
  /** Legal in every state and repeatable; returns when nothing of it runs any more. An aborted signal hurries it. */
  stop(signal: AbortSignal): Promise<void>
  status(): ProcessStatus
}

/** Under which addresses the Node and the API server are known. */
export interface Addresses {
  readonly nodeIp: string
  /** Of the other family, in a cluster of both; undefined: the machine has none. */
  readonly otherNodeIp?: string | undefined
  readonly advertiseAddress: string
}

/** The Node's, that of the cluster's first family first. */
export function nodeIps({ nodeIp, otherNodeIp }: Pick<Addresses, 'nodeIp' | 'otherNodeIp'>): string[] {
  return otherNodeIp === undefined ? [nodeIp] : [nodeIp, otherNodeIp]
}

/** What the components of any machine with pods are made from; the same for all of a daemon. */
export interface MachineContext {
  readonly config: MachineConfig
  /** The Node's and the API server's, as they are now: the machine's may change. */
  readonly addresses: () => Addresses
  readonly paths: Paths
  readonly payload: Payload
  /** What this machine is. */
  readonly host: HostFacts
  /** What `auto` stands for on it. */
  readonly choices: NodeChoices
  /** Of the process: what a component may take from it, it names itself. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** The addresses of this Node's pods, of each family; undefined: only the Node knows, once it is there. */
  readonly podCidr: string | undefined
  /**
   * Settled when the certificates and kubeconfigs are there; every client of the API server waits for it. What could not
   * be renewed now, and can be used as it is, is its value.
   */
  readonly credentials: Promise<AppError | undefined>
  readonly log: Logger
}

/** The same of a machine that has a cluster. */
export interface NodeContext extends MachineContext {
  readonly config: NodeConfig
  readonly access: NodeAccess
}

/** What a kubelet alone is made from. */
export interface KubeletContext extends MachineContext {
  readonly config: KubeletConfig
  readonly pki: KubeletPkiFiles
  /** A user's KubeletConfiguration. */
  readonly ownConfig: Readonly<Record<string, unknown>> | undefined
  /** Of the CRI. */
  readonly runtimeSocket: string
  /** Hears what the kubelet says of manifests. */
  readonly onRecord: RecordListener
}

/** What the components of a server are made from. */
export interface ComponentContext extends NodeContext {
  readonly config: Config
  readonly access: ServerAccess
  readonly pki: PkiFiles
  /** The flags by which kube-apiserver finds its storage. */
  readonly storageFlags: Readonly<Record<string, string>>
  /** It is elsewhere, and may be away for any time. */
  readonly storageMayBeAway: boolean
}

/** Every component that there is, in the order of their start in all roles; leftovers are ended in the reverse. */
export const componentNames = [
  'datastore',
  'etcd',
  'etcd-proxy',
  'api-balancer',
  'containerd',
  'cri-dockerd',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'kubelet',
  'kube-proxy',
] as const
export type ComponentName = (typeof componentNames)[number]
