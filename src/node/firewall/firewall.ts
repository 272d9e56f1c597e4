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
import { familyOf, ofFamilies } from '../../base/address.ts'
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
  /** Whether the port mappings of a container are there, of the families in which it has some. */
  readonly hasPorts: (containerId: string, families: readonly (4 | 6)[]) => boolean
}

export interface Firewall {
  /** undefined: not looked at. `thorough` reads rules and not only names, which costs more. */
  read(options: { run: RunRules; thorough: boolean }): Promise<Present | undefined>
  /** Lets through what comes from pods and goes to them, after all rules that are there: those of others are heeded. */
  writeForwarding(run: RunRules): Promise<void>
  /** Writes the rules of masquerading, whatever is there. */
  writeMasquerade(run: RunRules): Promise<void>
}

/** Of the ranges of the cluster: each family has rules of its own. */
export function firewall(backend: Backend, clusterCidr: string): Firewall {
  const one = backend === 'nftables' ? nftables : iptables
  const [first = '', second] = ofFamilies(clusterCidr)
  if (second === undefined) return one(first)
  return both([first, second].map((cidr) => ({ family: familyOf(cidr), rules: one(cidr) })))
}

interface FamilyRules {
  readonly family: 4 | 6
  readonly rules: Firewall
}

/** One that has what it needs in each family. */
function both(parts: readonly FamilyRules[]): Firewall {
  /** Of which family something was missing in the last look: the chain FORWARD of the other one may not be there. */
  let found: readonly (FamilyRules & { readonly present: Present })[] = []
  return {
    async read(options) {
      const looked = await Promise.all(
        parts.map(async (part) => ({ ...part, present: await part.rules.read(options) })),
      )
      const known = looked.flatMap(({ present, ...part }) =>
        present === undefined ? [] : [{ ...part, present }],
      )
      if (known.length < parts.length) return undefined
      found = known
      return {
        forwarding: known.every(({ present }) => present.forwarding),
        masquerade: known.every(({ present }) => present.masquerade),
        services: known.every(({ present }) => present.services),
        hasPorts: (containerId, families) =>
          known
            .filter(({ family }) => families.includes(family))
            .every(({ present }) => present.hasPorts(containerId, families)),
      }
    },
    async writeForwarding(run) {
      for (const { rules, present } of found) if (!present.forwarding) await rules.writeForwarding(run)
    },
    async writeMasquerade(run) {
      for (const { rules } of parts) await rules.writeMasquerade(run)
    },
  }
}
