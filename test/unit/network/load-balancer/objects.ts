import type { WatchedObject } from '../../../../src/api/watch.ts'

interface ServiceParts {
  readonly spec?: object
  readonly ports?: readonly (number | object)[]
  readonly createdAt?: string
  readonly ingress?: readonly object[]
  readonly manager?: string
  readonly resourceVersion?: string
  /** Whose finalizer it has. */
  readonly heldBy?: string
}

const finalizer = 'service.kubernetes.io/load-balancer-cleanup'
const finalizerFields = { 'f:metadata': { 'f:finalizers': { '.': {}, [`v:"${finalizer}"`]: {} } } }

/** A Service of type LoadBalancer, as the API server has it. */
export function service(name: string, parts: ServiceParts = {}): WatchedObject {
  const {
    spec,
    ports = [80],
    createdAt = '2026-01-01T00:00:00Z',
    ingress,
    manager,
    resourceVersion = '1',
    heldBy,
  } = parts
  const fieldsV1 = { 'f:status': { 'f:loadBalancer': { 'f:ingress': {} } } }
  return {
    metadata: {
      ...{ name, namespace: 'x', uid: `uid of ${name}`, creationTimestamp: createdAt, resourceVersion },
      managedFields: [
        { manager: 'kubectl', fieldsV1: { 'f:spec': {} } },
        ...(manager === undefined ? [] : [{ manager, subresource: 'status', fieldsV1 }]),
        ...(heldBy === undefined ? [] : [{ manager: heldBy, fieldsV1: finalizerFields }]),
      ],
      ...(heldBy !== undefined && { finalizers: ['example.com/other', finalizer] }),
    },
    spec: {
      type: 'LoadBalancer',
      ipFamilies: ['IPv4'],
      ports: ports.map((port) => (typeof port === 'number' ? { port, protocol: 'TCP' } : port)),
      ...spec,
    },
    status: { loadBalancer: ingress === undefined ? {} : { ingress } },
  }
}

export function vip(...ips: readonly string[]): object[] {
  return ips.map((ip) => ({ ip, ipMode: 'VIP' }))
}

interface NodeParts {
  readonly internal?: readonly string[]
  readonly external?: readonly string[]
  readonly ready?: string
  readonly labels?: object
  readonly resourceVersion?: string
}

export function node(name: string, parts: NodeParts = {}): WatchedObject {
  const { internal = [], external = [], ready = 'True', labels = {}, resourceVersion = '1' } = parts
  return {
    metadata: { name, labels, resourceVersion },
    status: {
      conditions: [
        { type: 'DiskPressure', status: 'False' },
        { type: 'Ready', status: ready },
      ],
      addresses: [
        { type: 'Hostname', address: name },
        ...internal.map((address) => ({ type: 'InternalIP', address })),
        ...external.map((address) => ({ type: 'ExternalIP', address })),
      ],
    },
  }
}

export function slice(
  name: string,
  {
    of,
    namespace = 'x',
    endpoints = [],
    ports = [],
    ...rest
  }: {
    of: string
    namespace?: string
    endpoints?: readonly object[]
    ports?: readonly object[]
    addressType?: string
  },
): WatchedObject {
  const metadata = { name, namespace, labels: { 'kubernetes.io/service-name': of }, resourceVersion: '1' }
  return { metadata, ...{ addressType: 'IPv4', endpoints, ports, ...rest } }
}
