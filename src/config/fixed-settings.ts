import { isDeepStrictEqual } from 'node:util'
import type { Facts } from './facts.ts'
import type { Host } from './host.ts'
import { paths } from './paths.ts'
import { everyRole, type PresentRole, presentRoles, type RoleName } from './roles.ts'
import { rowOf } from './schema.ts'
import { describeSetting, parseSetting, type Setting, showText, textOf, usageError } from './table/setting.ts'

/**
 * What was fixed at creation, as settings: stronger than a default, and not to be contradicted by any other source.
 * Other names are passed over: the record may come from a snapshot that somebody else made, and decides no more than that. `server` has
 * told those of the cluster where they are not in the data directory.
 */
export function settingsOfFacts({ cluster, node }: Facts, dataDir: string, server?: string): Setting[] {
  const { clusterFacts, nodeRecord } = paths({ dataDir })
  const settings = (of: 'cluster' | 'node', facts: Readonly<Record<string, string>>, path: string) =>
    Object.entries(facts)
      .filter(([name]) => rowOf(name)?.factOf === of)
      .map(([name, text]): Setting => ({ name, texts: [text], origin: { kind: 'fact', path } }))
  return [...settings('cluster', cluster, server ?? clusterFacts), ...settings('node', node, nodeRecord)]
}

/**
 * Adds the facts of a role to the settings that were chosen, or throws USAGE: what is fixed, what was asked, and the
 * way out. A fact that this version has no setting for is a later one's.
 */
export function addFacts(chosen: Map<string, Setting>, facts: readonly Setting[], role: RoleName): void {
  for (const fact of facts) {
    const row = rowOf(fact.name)
    if (row === undefined || ![...row.roles, ...(row.learntBy ?? [])].includes(role)) continue
    const asked = chosen.get(fact.name)
    if (asked === undefined) chosen.set(fact.name, fact)
    else if (!isDeepStrictEqual(parseSetting(row, asked), parseSetting(row, fact))) {
      throw contradiction(asked, fact, textOf(row, asked))
    }
  }
}

function contradiction(asked: Setting, { name, texts, origin }: Setting, text: string): Error {
  const shown = describeSetting(asked, text)
  const [fixed, path] = [showText(texts[0] ?? ''), origin.kind === 'fact' ? origin.path : '']
  if (name === 'node-name') {
    return usageError(
      `cannot use ${shown}: this machine is the Node ${fixed} (${path}), and a Node keeps its name; leave the setting away, or ${anotherNode(fixed, path)}`,
    )
  }
  return usageError(
    `cannot use ${shown}: the cluster was created with ${name} ${fixed} (${path}), which cannot change; leave the setting away, or create another cluster with another --data-dir, or after k8s reset`,
  )
}

/** How a machine becomes another Node; what the former one held on it is lost, which is why nothing does it unasked. */
function anotherNode(former: string, nodeRecord: string): string {
  return `make another Node of it: k8s stop --pods, remove ${nodeRecord}, start again, then k8s kubectl delete node ${former}`
}

/** A Node that has the name of its machine keeps it when the machine gets another. */
export function warningOfHostName(given: {
  chosen: ReadonlyMap<string, Setting>
  facts: Facts
  host: Host
  dataDir: string
}): string | undefined {
  const { chosen, facts, host, dataDir } = given
  const nodeName = facts.node['node-name']
  if (nodeName === undefined || facts.hostName !== nodeName || chosen.has('node-name')) return undefined
  const hostName = host.nodeName()
  if (hostName === nodeName) return undefined
  const { nodeRecord } = paths({ dataDir })
  return `the host name is ${showText(hostName)} now, and the Node keeps its name ${nodeName} (${nodeRecord}); let it, or ${anotherNode(nodeName, nodeRecord)}`
}

/** What a record says of the role, where this version has such a role. */
export function presentRole(text: string | undefined): PresentRole | undefined {
  return presentRoles(everyRole).find((name) => name === text) as PresentRole | undefined
}
