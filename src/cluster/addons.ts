import { coredns } from '../addons/coredns.ts'
import type { Manifest } from '../addons/manifest.ts'
import { kubeletAccess } from '../addons/rbac.ts'
import type { Config } from '../config/config.ts'
import type { Payload } from '../payload/payload.ts'
import { apiserverKubeletUser } from '../pki/leaves.ts'

export interface AddonOptions {
  readonly config: Config
  readonly payload: Payload
  /** The node has a name server to ask for names outside of the cluster. */
  readonly hasNameServer: boolean
}

/** What is applied to every cluster, in order. Pure. */
export function addonManifests({ config, payload, hasNameServer }: AddonOptions): Manifest[] {
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
