import { readFile } from 'node:fs/promises'
import { ApiBalancer, balancerUrl } from '../../balancer/api-balancer.ts'
import { joinedAccess, joinedFiles } from '../../components/node-access.ts'
import type { AgentConfig } from '../../config/config.ts'
import { chooseForNode } from '../../node/facts/choices.ts'
import { detectHost } from '../../node/facts/host.ts'
import { writeNodeKubeconfigs } from '../../pki/kubeconfig.ts'
import { planAgent } from '../plan.ts'
import { type Prepared, type PrepareOptions, settleNode, underWay } from '../prepare-node.ts'
import { rememberedPodCidr } from '../tasks/pod-range.ts'
import { joinAsAgent } from './join.ts'
import { rememberedServers, rememberServers } from './remembered-servers.ts'

/** Of an agent: it has to know its cluster before anything else. undefined when the signal ends the wait for what is not there. */
export async function prepareAgent(
  given: AgentConfig,
  options: PrepareOptions,
): Promise<Prepared | undefined> {
  const { paths, payload, environment, log } = options
  const host = detectHost()
  const config = await joinAsAgent(given, options)
  if (config === undefined) return undefined
  const node = await settleNode(config, options)
  if (node === undefined) return undefined
  const access = joinedAccess(paths, balancerUrl)
  const { serverCaFile: caFile, certificateFile } = joinedFiles(paths)
  const issueCredentials = () =>
    writeNodeKubeconfigs({ dir: paths.kubeconfigDir, server: access.server, caFile }, certificateFile)
  const servers = rememberedServers(config, {
    ...{ paths, log },
    tls: { ca: await readFile(caFile, 'utf8'), checkedAs: '127.0.0.1' },
  })
  const balancer = new ApiBalancer({
    ...{ servers, identity: access.identity, log },
    remember: (known) => rememberServers(known, { paths, log }),
  })
  const context = {
    ...{ config, addresses: node.addresses, paths, payload, host, environment, log, access },
    credentials: underWay(issueCredentials()),
    podCidr: rememberedPodCidr(paths),
    choices: chooseForNode(config, host),
  }
  return {
    plan: planAgent(context, {
      balancer,
      issueCredentials,
      whenAway: (signal) => servers.whenNoneServes(signal),
    }),
    moveNode: node.moveNode,
  }
}
