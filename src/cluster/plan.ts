import { assert } from '../base/errors.ts'
import { apiserver } from '../components/apiserver.ts'
import type { Component, ComponentContext, MachineContext, NodeContext } from '../components/component.ts'
import { containerd } from '../components/containerd.ts'
import { controllerManager } from '../components/controller-manager.ts'
import { kubeProxy } from '../components/kube-proxy.ts'
import { kubelet } from '../components/kubelet.ts'
import { processComponent, type ProcessRecipe } from '../components/process-component.ts'
import { scheduler } from '../components/scheduler.ts'
import type { NodeAccess } from '../components/node-access.ts'
import type { Config } from '../config/config.ts'
import type { Paths } from '../config/paths.ts'
import type { RoleName } from '../config/roles.ts'
import { embeddedStorage } from '../storage/embedded.ts'
import { etcdMember } from '../storage/etcd-member.ts'
import { externalEtcd } from '../storage/external-etcd.ts'
import type { Storage, StorageOptions } from '../storage/storage.ts'
import { boundTasks } from './bound-tasks.ts'
import { type CredentialOptions, prepareCredentials } from './credentials.ts'
import { alone, type Leadership } from './leadership.ts'
import { LeaseElection } from './lease-election.ts'
import { leaseStore } from './lease-store.ts'
import { addons } from './tasks/addons.ts'
import { certificates } from './tasks/certificates.ts'
import { encryption } from './tasks/encryption.ts'
import { etcdCare } from './tasks/etcd-care.ts'
import { etcdMembers } from './tasks/etcd-members.ts'
import { facts } from './tasks/facts.ts'
import { firewall } from './tasks/firewall.ts'
import { images } from './tasks/images.ts'
import { join } from './tasks/join.ts'
import { joiners } from './tasks/joiners.ts'
import { metrics } from './tasks/metrics.ts'
import { network } from './tasks/network.ts'
import { networkPolicy } from './tasks/network-policy.ts'
import { nodeAddress } from './tasks/node-address.ts'
import { nodeRole } from './tasks/node-role.ts'
import { payloads } from './tasks/payloads.ts'
import { firstPodCidr, knownPodCidr, podRange, rememberedPodCidr } from './tasks/pod-range.ts'
import { servicelb } from './tasks/servicelb.ts'
import { snapshots } from './tasks/snapshots.ts'
import type { NodeTaskContext, Surroundings, Task, TaskContext } from './tasks/task.ts'

/** What a role of servers consists of. */
export interface RoleRow {
  /** Brings certificates and kubeconfigs in order. */
  readonly issueCredentials: (options: CredentialOptions) => Promise<void>
  /** The addresses of the Node's pods, as far as they are known before it is there. */
  readonly podCidr: (config: Config, paths: Paths) => string | undefined
  readonly storage: (options: StorageOptions) => Storage
  readonly leadership: (context: ComponentContext) => Leadership
  /** In the order of their start; the stop goes through it backwards. One that is turned off has no recipe. */
  readonly components: readonly ((context: ComponentContext) => ProcessRecipe | undefined)[]
  readonly tasks: readonly Task<TaskContext>[]
}

const server: Omit<RoleRow, 'storage' | 'leadership'> = {
  issueCredentials: prepareCredentials,
  podCidr: knownPodCidr,
  components: [containerd, apiserver, controllerManager, scheduler, kubelet, kubeProxy],
  tasks: [
    facts,
    firewall,
    images,
    podRange,
    nodeRole,
    network,
    networkPolicy,
    metrics,
    servicelb,
    addons,
    joiners,
    certificates,
    nodeAddress,
    payloads,
    snapshots,
    etcdCare,
    etcdMembers,
    encryption,
  ],
}

/** A new kind of server is a row here; a new component or task is a file, and its name in the rows that have it. A kubelet alone: kubelet/plan.ts. */
const roles: Partial<Record<RoleName, RoleRow>> = {
  single: { ...server, storage: embeddedStorage, leadership: () => alone },
  ha: {
    ...server,
    podCidr: (config, paths) => rememberedPodCidr(paths) ?? firstPodCidr(config, paths),
    storage: sharedStorage,
    leadership: byLease,
  },
}

/** Of several servers: their own etcd, or one that others run. */
function sharedStorage(options: StorageOptions): Storage {
  return options.config.clusterInit ? etcdMember(options) : externalEtcd(options)
}

function byLease(context: ComponentContext): Leadership {
  return new LeaseElection({
    store: leaseStore({ lease: 'server', servers: [context.access.admin] }),
    name: context.config.nodeName,
    log: context.log.child({ task: 'leadership' }),
  })
}

/** What an agent consists of. None of its tasks is for a leader alone: only servers elect one. */
const agent: {
  readonly components: readonly ((context: NodeContext) => ProcessRecipe | undefined)[]
  readonly tasks: readonly Task<NodeTaskContext>[]
} = {
  components: [containerd, kubelet, kubeProxy],
  tasks: [join, firewall, images, podRange, network, networkPolicy, metrics, nodeAddress, payloads],
}

export interface Plan {
  /** What of it lives in this process is a part of the daemon's own health. */
  readonly storage: Pick<Storage, 'failed' | 'ping'>
  /** The storage's come first. */
  readonly components: readonly Component[]
  readonly tasks: readonly Task<Surroundings>[]
  readonly leadership: Leadership
  readonly context: MachineContext
  /** Of the CRI in which its pods are. */
  readonly runtimeSocket: string
  /** By which the cluster is asked for its Node; a kubelet alone has none. */
  readonly access?: NodeAccess
  /** Of a node whose servers are elsewhere: resolves when none of them serves, which no start waits for. */
  readonly whenAway?: (signal: AbortSignal) => Promise<void>
}

export function roleRow(role: RoleName): RoleRow {
  const row = roles[role]
  assert(row !== undefined, `no plan for the role ${role}`)
  return row
}

/** Pure: nothing is written or started before the lifecycle of the components does it. */
export function planRole(
  row: RoleRow,
  given: Omit<ComponentContext, 'storageFlags' | 'storageMayBeAway'> & Pick<StorageOptions, 'joining'>,
): Plan {
  const { config, addresses, paths, log } = given
  const storage = row.storage(given)
  const context = { ...given, storageFlags: storage.apiserverFlags, storageMayBeAway: storage.mayBeAway }
  const recipes = row.components.flatMap((recipe) => recipe(context) ?? [])
  return {
    storage,
    components: [...storage.components, ...recipes.map((recipe) => processComponent(recipe, context))],
    tasks: boundTasks(row.tasks, {
      ...{ ...context, storage },
      issueCredentials: () => row.issueCredentials({ config, addresses, paths, log }),
    }),
    leadership: row.leadership(context),
    context,
    runtimeSocket: context.paths.containerdSocket,
    access: context.access,
  }
}

/** The same of an agent; `balancer` provides the API. */
export function planAgent(
  context: NodeContext,
  {
    balancer,
    issueCredentials,
    whenAway,
  }: Required<Pick<Plan, 'whenAway'>> & {
    balancer: Component
    issueCredentials: NodeTaskContext['issueCredentials']
  },
): Plan {
  const recipes = agent.components.flatMap((recipe) => recipe(context) ?? [])
  return {
    storage: { failed: new Promise(() => {}), ping: async () => {} },
    components: [balancer, ...recipes.map((recipe) => processComponent(recipe, context))],
    tasks: boundTasks(agent.tasks, { ...context, issueCredentials }),
    leadership: alone,
    context,
    runtimeSocket: context.paths.containerdSocket,
    access: context.access,
    whenAway,
  }
}
