import { applyManifests } from '../../addons/apply.ts'
import { coredns } from '../../addons/coredns.ts'
import type { Manifest } from '../../addons/manifest.ts'
import { kubeletAccess } from '../../addons/rbac.ts'
import type { Config } from '../../config/config.ts'
import type { Payload } from '../../payload/payload.ts'
import { apiserverUrl } from '../../components/probe.ts'
import { apiserverKubeletUser } from '../../pki/leaves.ts'
import { readIdentity } from '../../pki/pki.ts'
import type { Task } from './task.ts'

interface AddonOptions {
  readonly config: Config
  readonly payload: Payload
  /** The node has a name server to ask for names outside of the cluster. */
  readonly hasNameServer: boolean
}

export const addons: Task = {
  name: 'addons',
  purpose: 'apply the add-ons',
  leaderOnly: true,
  async run({ config, payload, host, pki, log, whenReady }, signal) {
    const hasNameServer = host.resolvConf.kind === 'host' || host.resolvConf.hasServer
    await whenReady('node')
    await applyManifests({
      server: apiserverUrl(config),
      tls: await readIdentity(pki, 'admin-client'),
      manifests: addonManifests({ config, payload, hasNameServer }),
      log,
      signal,
    })
  },
}

/** What is applied to every cluster, in order. Pure. */
function addonManifests({ config, payload, hasNameServer }: AddonOptions): Manifest[] {
  const { clusterDns, clusterDomain } = config
  const dns = coredns({
    image: payload.version.images.coredns,
    clusterDns,
    clusterDomain,
    forward: hasNameServer,
  })
  return [
    ...kubeletAccess({ user: apiserverKubeletUser }),
    ...(config.disable.includes('coredns') ? [] : dns),
  ]
}
