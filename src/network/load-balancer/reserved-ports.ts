import type { Config } from '../../config/config.ts'
import { datagramPorts, ports } from '../../config/ports.ts'
import { schema } from '../../config/schema.ts'

/** Who has a port of the nodes, as in "the kubelet has that port"; undefined: nobody. */
export type HolderOf = (port: string) => string | undefined

const nodePortFlag = 'service-node-port-range='
/** kube-apiserver's default. */
const defaultNodePorts = '30000-32767'
const sshPort = 22

/**
 * Ports that no Service gets, as the machines of the cluster have them for themselves, whichever of its roles: kube-proxy, which is before
 * all that listens, would take them away. Those on loopback are among them: what a role listens on may change.
 */
export function reservedPorts({
  httpsListenPort,
  kubeApiserverArg,
}: Pick<Config, 'httpsListenPort' | 'kubeApiserverArg'>): HolderOf {
  const holders = new Map<string, string>([[`${sshPort}/TCP`, 'SSH']])
  for (const { number, holder } of Object.values(ports)) holders.set(`${number}/TCP`, holder)
  for (const { number, holder } of Object.values(datagramPorts)) holders.set(`${number}/UDP`, holder)
  for (const number of [schema['https-listen-port'].default, httpsListenPort])
    holders.set(`${number}/TCP`, 'the API server')
  const given = kubeApiserverArg.findLast((flag) => flag.startsWith(nodePortFlag))
  const [first, last] = portRange(given?.slice(nodePortFlag.length) ?? defaultNodePorts)
  return (port) => {
    const number = Number.parseInt(port, 10)
    return (
      holders.get(port) ??
      (number >= first && number <= last ? `the range of NodePorts (${first}-${last})` : undefined)
    )
  }
}

/** As kube-apiserver takes it: "30000-32767", "30000+2767", "30000". What it does not take, it does not start with. */
function portRange(text: string): readonly [first: number, last: number] {
  const [, base = '0', sign, rest = '0'] = /^(\d+)(?:([-+])(\d+))?$/.exec(text.trim()) ?? []
  const first = Number(base)
  return [first, sign === undefined ? first : sign === '-' ? Number(rest) : first + Number(rest)]
}
