/**
 * Makes what bare.sh starts with: the same certificates and configuration files that the daemon would
 * make, so that only the starting is compared. Runs inside the machine: node prepare-bare.ts DIRECTORY
 */
import { writeFileSync } from 'node:fs'
import { silentLogger } from '../../src/base/logger.ts'
import { prepareCredentials } from '../../src/cluster/credentials.ts'
import { prepareDirectories } from '../../src/cluster/directories.ts'
import type { ComponentContext } from '../../src/components/component.ts'
import { containerd } from '../../src/components/containerd.ts'
import { kubeProxyArguments } from '../../src/components/kube-proxy.ts'
import { kubelet } from '../../src/components/kubelet.ts'
import { serverAccess } from '../../src/components/node-access.ts'
import { addressesOf } from '../../src/cluster/node-address.ts'
import { loadConfig } from '../../src/config/load.ts'
import { paths as pathsOf } from '../../src/config/paths.ts'
import { chooseForNode } from '../../src/node/facts/choices.ts'
import { detectHost } from '../../src/node/facts/host.ts'
import { nodePodCidr } from '../../src/node/render/cni-config.ts'
import { openPayload } from '../../src/payload/payload.ts'
import { pkiFiles } from '../../src/pki/pki.ts'

const [directory = '', payloadDir] = process.argv.slice(2)
const config = await loadConfig({ flags: [{ name: 'data-dir', text: directory }], environment: {} })
const paths = pathsOf(config)
await prepareDirectories(paths, silentLogger)
const host = detectHost()
// machine.sh gives every machine this one.
const addresses = () => addressesOf(config, '10.89.0.2')
const context: ComponentContext = {
  ...{
    config,
    addresses,
    paths,
    host,
    payload: openPayload(payloadDir),
    pki: pkiFiles(paths.pkiDir),
    access: serverAccess(config, paths),
    log: silentLogger,
  },
  choices: chooseForNode(config, host),
  podCidr: nodePodCidr(config.clusterCidr),
  environment: {},
  storageFlags: {},
  storageMayBeAway: false,
  credentials: prepareCredentials({ config, addresses, paths, log: silentLogger }).then(() => undefined),
}
for (const component of [containerd, kubelet]) await component(context).prepare?.()
// A flag a line.
writeFileSync(`${directory}/etc/kube-proxy.flags`, `${kubeProxyArguments(context).join('\n')}\n`)
