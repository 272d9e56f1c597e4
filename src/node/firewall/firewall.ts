/*
 * The rules that pods live by, and who writes them:
 *
 *    forwarding        what comes from pods and goes to them    the daemon, where the chain FORWARD drops what no rule names
 *    masquerading      pods reach the world with the node's address    the daemon, for the whole range of pods
 *    Services          kube-proxy's own tables or chains               kube-proxy, at its start
 *    port mappings     hostPort of pods                                the plugin portmap, when a pod starts
 *
 * `nft flush ruleset`, or a firewall that is loaded anew, takes them all away. cluster/tasks/firewall.ts looks whether
 * they are there, and has them written again.
 */
import { iptables } from './iptables.ts'
import { nftables } from './nftables.ts'

type Backend = 'nftables' | 'iptables'

/** Runs a program and gives its output; rejects when it fails. */
export type RunRules = (command: string, args: readonly string[], input?: string) => Promise<string>

/** Which of the rules there are. */
export interface Present {
  /** Whether nothing of the pods' falls to a policy of the chain FORWARD that drops it (Docker, ufw). */
  readonly forwarding: boolean
  readonly masquerade: boolean
  readonly services: boolean
  /** Whether the port mappings of a container are there. */
  readonly hasPorts: (containerId: string) => boolean
}

export interface Firewall {
  /** undefined: not looked at. `thorough` reads rules and not only names, which costs more. */
  read(options: { run: RunRules; thorough: boolean }): Promise<Present | undefined>
  /** Lets through what comes from pods and goes to them, after all rules that are there: those of others are heeded. */
  writeForwarding(run: RunRules): Promise<void>
  /** Writes the rules of masquerading, whatever is there. */
  writeMasquerade(run: RunRules): Promise<void>
}

export function firewall(backend: Backend, clusterCidr: string): Firewall {
  return backend === 'nftables' ? nftables(clusterCidr) : iptables(clusterCidr)
}
