import { nodeIps } from '../../components/component.ts'
import type { KubeletConfig } from '../../config/config.ts'
import { keepFacts } from '../../config/facts.ts'
import { thisHost } from '../../config/host.ts'
import { readOwnConfig } from '../../config/own-kubelet-config.ts'
import { criDockerdSocket, type Paths } from '../../config/paths.ts'
import { chooseForNode } from '../../node/facts/choices.ts'
import { detectHost } from '../../node/facts/host.ts'
import { kubeletPkiFiles, prepareKubeletPki } from '../../pki/kubelet.ts'
import { type Prepared, type PrepareOptions, settleNode, underWay } from '../prepare-node.ts'
import { requireNoneLate, tellRenewals } from '../renewals.ts'
import { settleDocker } from './docker.ts'
import { planKubelet } from './plan.ts'
import { Rejections } from './static-pods.ts'

/** Of a kubelet alone. undefined when the signal ends the wait for an address. */
export async function prepareKubelet(
  given: KubeletConfig,
  options: PrepareOptions,
): Promise<Prepared | undefined> {
  const { paths, payload, environment, log } = options
  const ownConfig = await readOwnConfig(given)
  const host = detectHost()
  const config = given.containerRuntime === 'docker' ? await settleDocker(given, { host, log }) : given
  // Before there are keys, which would be a server's.
  keepFacts(config, thisHost.nodeName())
  const node = await settleNode(config, options)
  if (node === undefined) return undefined
  const { addresses } = node
  const issueCredentials = async () => {
    const { putOff, ...told } = await prepareKubeletPki({
      ...{ dir: paths.pkiDir, nodeName: config.nodeName },
      addresses: [...nodeIps(addresses()), ...boundTo(config)],
    })
    tellRenewals(told, log)
    requireNoneLate(putOff)
  }
  const rejections = new Rejections(config.manifests, log)
  const context = {
    ...{ config, addresses, paths, payload, host, environment, log, ownConfig },
    credentials: underWay(issueCredentials()),
    pki: kubeletPkiFiles(paths.pkiDir),
    podCidr: config.clusterCidr,
    choices: chooseForNode(config, host),
    onRecord: rejections.listen,
    runtimeSocket: runtimeSocketOf(config, paths),
  }
  return { plan: planKubelet(context, { issueCredentials, rejections }), moveNode: node.moveNode }
}

function runtimeSocketOf(
  { containerRuntime, containerRuntimeEndpoint }: KubeletConfig,
  { containerdSocket }: Paths,
): string {
  return containerRuntimeEndpoint ?? (containerRuntime === 'docker' ? criDockerdSocket : containerdSocket)
}

function boundTo({ kubeletBindAddress }: KubeletConfig): string[] {
  return ['0.0.0.0', '::'].includes(kubeletBindAddress) ? [] : [kubeletBindAddress]
}
