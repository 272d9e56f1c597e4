import { policyFacts, podFacts, namespaceFacts } from '../../../../src/network/policy/facts.ts'
import { PolicyEngine } from '../../../../src/network/policy/engine.ts'
import type { WatchedObject } from '../../../../src/api/watch.ts'

/** Objects as the API server gives them, of which tests say what matters. */
export interface World {
  readonly policies: Map<string, WatchedObject>
  readonly namespaces: Map<string, WatchedObject>
  readonly pods: Map<string, WatchedObject>
}

type Given = Record<string, unknown>

export function policy(namespace: string, name: string, spec: Given): WatchedObject {
  return { metadata: { namespace, name, uid: `${namespace}-${name}` }, spec }
}

export function namespace(name: string, labels: Given = {}): WatchedObject {
  return { metadata: { name, labels: { 'kubernetes.io/metadata.name': name, ...labels } } }
}

export interface PodGiven {
  readonly labels?: Given
  readonly ips?: readonly string[]
  readonly node?: string
  readonly ports?: readonly Given[]
  readonly phase?: string
  readonly hostNetwork?: boolean
  readonly createdAt?: string
  readonly uid?: string
}

export function pod(namespace: string, name: string, given: PodGiven = {}): WatchedObject {
  const { labels = {}, ips = [], node = 'here', ports = [], phase = 'Running', hostNetwork = false } = given
  return {
    metadata: {
      ...{ namespace, name, labels, uid: given.uid ?? `${namespace}-${name}` },
      creationTimestamp: given.createdAt ?? '2026-01-01T00:00:00Z',
    },
    spec: { nodeName: node, hostNetwork, containers: [{ name: 'one', ports }] },
    status: { phase, podIP: ips[0], podIPs: ips.map((ip) => ({ ip })) },
  }
}

export function world(given: {
  policies?: readonly WatchedObject[]
  namespaces?: readonly WatchedObject[]
  pods?: readonly WatchedObject[]
}): World {
  const keyed = (objects: readonly WatchedObject[] = []) =>
    new Map(objects.map((object) => [keyOf(object), object]))
  return { policies: keyed(given.policies), namespaces: keyed(given.namespaces), pods: keyed(given.pods) }
}

export function keyOf({ metadata }: WatchedObject): string {
  const { namespace: of, name } = metadata ?? {}
  return of === undefined ? String(name) : `${String(of)}/${String(name)}`
}

export function newEngine(): PolicyEngine {
  return new PolicyEngine({ nodeName: 'here', families: [4, 6] })
}

/** An engine that has been told everything at once. */
export function engineOf({ policies, namespaces, pods }: World): PolicyEngine {
  const engine = newEngine()
  const facts = <Value>(
    objects: Map<string, WatchedObject>,
    read: (object: WatchedObject) => readonly [string, Value] | undefined,
  ) => new Map([...objects.values()].map(read).filter((entry) => entry !== undefined))
  engine.setAll({
    policies: facts(policies, policyFacts),
    namespaces: facts(namespaces, namespaceFacts),
    pods: facts(pods, podFacts),
  })
  settle(engine)
  return engine
}

export function settle(engine: PolicyEngine): void {
  engine.work().forEach(() => {})
}
