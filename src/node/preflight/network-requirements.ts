import { familyOf, ofFamilies } from '../../base/address.ts'
import { parseListeners } from '../../base/proc.ts'
import { portsOfRole } from '../../config/ports.ts'
import { roleOf } from '../../config/roles.ts'
import { canUseNftables } from '../facts/choices.ts'
import type { HostFiles } from '../facts/host-files.ts'
import { chooseNodeAddress, chooseOtherAddress, describePassedOver } from '../facts/node-address.ts'
import type { Examination } from './examination.ts'
import { missing, ok, type Requirement, warning } from './requirement.ts'

export function networkRequirements(examination: Examination): Requirement[] {
  const { config } = examination
  const clusterInit = 'clusterInit' in config && config.clusterInit
  const port = config.role === 'server' ? config.httpsListenPort : undefined
  const api = port === undefined ? [] : [{ port, component: 'kube-apiserver', flag: 'https-listen-port' }]
  const fixed = portsOfRole(roleOf(config), { clusterInit }).map(({ number, holder }) => ({
    port: number,
    component: holder,
  }))
  const { metricsAddress } = config
  const metrics =
    metricsAddress === undefined
      ? []
      : [{ port: metricsAddress.port, component: 'the daemon, for its metrics,', flag: 'metrics-address' }]
  return [
    nodeAddress(examination),
    ...otherNodeAddress(examination),
    ...portsOf(examination, [...api, ...fixed, ...metrics]),
    nameServers(examination),
    ...(config.role === 'kubelet' ? [] : [networkPolicy(examination)]),
  ]
}

function networkPolicy({ config, host }: Examination): Requirement {
  const name = 'NetworkPolicy'
  if (config.disable.includes('network-policy'))
    return warning(name, 'left out (disable): something else has to keep pods apart')
  return canUseNftables(host)
    ? ok(name, `enforced by ${host.command('nft')}`)
    : warning(
        name,
        'not enforced: that takes the program nft, and nftables in the kernel',
        'install nftables',
      )
}

function nodeAddress({ config, network }: Examination): Requirement {
  const name = 'node address'
  const chosen = chooseNodeAddress(config, network)
  if (chosen === undefined) {
    return missing(
      name,
      `this machine has none: ${describePassedOver(config, network)}`,
      'the server waits for one: give an interface an address, for instance: ip link add k8s0 type dummy && ip address add 192.168.254.1/32 dev k8s0 && ip link set k8s0 up',
    )
  }
  const { address, isPresent } = chosen
  if (isPresent) return ok(name, `${config.nodeName} at ${address}`)
  if (address === network.last) {
    return warning(name, `${address}, the last one: no interface has it now`, 'bring the network up')
  }
  return missing(name, `no interface has ${address}`, 'set --node-ip to an address of this machine')
}

/** In a cluster of both families. A Node without it has pods of both all the same. */
function otherNodeAddress({ config, network }: Examination): Requirement[] {
  const second = config.role === 'kubelet' ? undefined : ofFamilies(config.serviceCidr)[1]
  if (second === undefined) return []
  const name = `node address, IPv${familyOf(second)}`
  const address = chooseOtherAddress(config, network)
  if (address !== undefined) return [ok(name, address)]
  const gap = `no interface has one: nothing of the Node itself (NodePort, host-gw) works by IPv${familyOf(second)}`
  return [warning(name, gap, 'give an interface one; it is followed')]
}

function portsOf(
  examination: Examination,
  wanted: readonly { port: number; component: string; flag?: string }[],
): Requirement[] {
  const { files, isRunning } = examination
  if (isRunning) return [ok('ports', 'in use by this cluster, which is running')]
  const listening = listeningPorts(files)
  const taken = wanted.filter(({ port }) => listening.has(port))
  if (taken.length === 0) return [ok('ports', `${wanted.map(({ port }) => port).join(', ')} are free`)]
  return taken.map(({ port, component, flag }) => {
    const remedy =
      flag === undefined
        ? 'end what listens there (another Kubernetes?)'
        : `end what listens there, or choose another with --${flag}`
    return missing(`port ${port}`, `taken; ${component} needs it`, remedy)
  })
}

export function listeningPorts(files: HostFiles): Set<number> {
  const tables = ['/proc/net/tcp', '/proc/net/tcp6'].map((path) => files.read(path) ?? '')
  return new Set(tables.flatMap(parseListeners).map(({ port }) => port))
}

function nameServers({ host: { resolvConf }, config }: Examination): Requirement {
  const name = 'name servers'
  if (resolvConf.kind === 'host') return ok(name, resolvConf.path)
  if (resolvConf.hasServer) return ok(name, '/etc/resolv.conf without its servers on loopback addresses')
  return warning(
    name,
    `this machine names none that a pod can reach: ${config.role === 'kubelet' ? 'names' : `names outside ${config.clusterDomain}`} have no answer`,
    'name a server that pods reach in /etc/resolv.conf, and restart k8s',
  )
}
