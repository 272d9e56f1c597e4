import { containerd } from '../../components/containerd.ts'
import { criDockerd } from '../../components/cri-dockerd.ts'
import type { KubeletContext } from '../../components/component.ts'
import { kubeletAlone } from '../../components/kubelet-alone.ts'
import { processComponent, type ProcessRecipe } from '../../components/process-component.ts'
import { boundTasks } from '../bound-tasks.ts'
import { alone } from '../leadership.ts'
import type { Plan } from '../plan.ts'
import { firewall } from '../tasks/firewall.ts'
import { dockerStore } from '../tasks/docker-images.ts'
import { containerdStore } from '../tasks/image-store.ts'
import { imagesOfPods } from '../tasks/images.ts'
import { metrics } from '../tasks/metrics.ts'
import { nodeAddress } from '../tasks/node-address.ts'
import { payloads } from '../tasks/payloads.ts'
import type { MachineTaskContext, Task } from '../tasks/task.ts'
import { ownCertificates } from './certificates.ts'
import { type Rejections, staticPodsTask } from './static-pods.ts'

/** What a kubelet alone consists of; nothing of a server is loaded for it. */
const kubelet: {
  readonly components: readonly ((context: KubeletContext) => ProcessRecipe | undefined)[]
  readonly tasks: readonly Task<MachineTaskContext>[]
} = {
  components: [ownRuntime, kubeletAlone],
  tasks: [ownCertificates, metrics, nodeAddress, payloads],
}

/** Pure, as `planRole`. */
export function planKubelet(
  context: KubeletContext,
  { issueCredentials, rejections }: Pick<MachineTaskContext, 'issueCredentials'> & { rejections: Rejections },
): Plan {
  const { restartDelay } = context.config
  const recipes = kubelet.components.flatMap((recipe) => recipe(context) ?? [])
  // For ever, and always so far apart: a machine alone has nobody who is spared by longer pauses.
  const backoff = { initialDelayMs: restartDelay, maximumDelayMs: restartDelay, random: () => 1 }
  const tasks = [...kubelet.tasks, staticPodsTask(context, rejections), ...tasksOfRuntime(context.config)]
  return {
    storage: { failed: new Promise(() => {}), ping: async () => {} },
    components: recipes.map((recipe) => processComponent({ ...recipe, backoff }, context)),
    tasks: boundTasks(tasks, { ...context, issueCredentials }),
    leadership: alone,
    context,
    runtimeSocket: context.runtimeSocket,
  }
}

/** What is for pods whose runtime, or network, is the daemon's. */
function tasksOfRuntime(config: KubeletContext['config']): readonly Task<MachineTaskContext>[] {
  const { containerRuntime, containerRuntimeEndpoint, dockerEndpoint } = config
  if (containerRuntimeEndpoint !== undefined) return []
  return [
    firewall,
    imagesOfPods(containerRuntime === 'docker' ? dockerStore(dockerEndpoint) : containerdStore),
  ]
}

function ownRuntime(context: KubeletContext): ProcessRecipe | undefined {
  const { containerRuntime, containerRuntimeEndpoint } = context.config
  if (containerRuntimeEndpoint !== undefined) return undefined
  return containerRuntime === 'docker' ? criDockerd(context) : containerd(context)
}
