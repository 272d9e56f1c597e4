import type { Manifest } from '../api/objects.ts'
import { clusterPlacement } from './placement.ts'

interface CorednsOptions {
  readonly image: string
  /** The address of the Service, that the kubelet writes into the pods' resolv.conf. */
  readonly clusterDns: string
  /** What the Service has of the other family, in a cluster of both. */
  readonly otherClusterDns?: string | undefined
  readonly clusterDomain: string
  /** Whether the node has a name server to ask for foreign names; without one `forward` would not start. */
  readonly forward: boolean
}

const name = 'coredns'
const namespace = 'kube-system'
const labels = { 'k8s-app': 'kube-dns' }

/**
 * Cluster DNS after the DNS specification of Kubernetes (github.com/kubernetes/dns,
 * docs/specification.md). The Service keeps the name kube-dns that its clients look for.
 */
export function coredns(options: CorednsOptions): Manifest[] {
  return [...access(), configuration(options), deployment(options), service(options)]
}

function access(): Manifest[] {
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name: 'system:coredns' },
      rules: [
        {
          apiGroups: [''],
          resources: ['endpoints', 'services', 'pods', 'namespaces'],
          verbs: ['list', 'watch'],
        },
        { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
      ],
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'system:coredns' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'system:coredns' },
      subjects: [{ kind: 'ServiceAccount', name, namespace }],
    },
  ]
}

/** `*.override` in a user's ConfigMap coredns-custom extends the zone, `*.server` adds zones. */
function configuration({ clusterDomain, forward }: CorednsOptions): Manifest {
  const corefile = [
    '.:53 {',
    '    errors',
    '    health {',
    '        lameduck 5s',
    '    }',
    '    ready',
    `    kubernetes ${clusterDomain} in-addr.arpa ip6.arpa {`,
    '        pods insecure',
    '        fallthrough in-addr.arpa ip6.arpa',
    '        ttl 30',
    '    }',
    '    prometheus :9153',
    ...(forward ? ['    forward . /etc/resolv.conf {', '        max_concurrent 1000', '    }'] : []),
    '    cache 30',
    '    loop',
    '    reload',
    '    loadbalance',
    '    import /etc/coredns-custom/*.override',
    '}',
    'import /etc/coredns-custom/*.server',
    '',
  ].join('\n')
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace }, data: { Corefile: corefile } }
}

function deployment({ image }: CorednsOptions): Manifest {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace, labels: { ...labels, 'kubernetes.io/name': 'CoreDNS' } },
    spec: {
      // No replicas: the default is one, and a user who scales it keeps the number.
      revisionHistoryLimit: 1,
      selector: { matchLabels: labels },
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1 } },
      template: {
        metadata: { labels },
        spec: {
          ...clusterPlacement,
          serviceAccountName: name,
          // The node's resolv.conf: the cluster's own would make CoreDNS ask itself.
          dnsPolicy: 'Default',
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              topologyKey: 'kubernetes.io/hostname',
              whenUnsatisfiable: 'ScheduleAnyway',
              labelSelector: { matchLabels: labels },
            },
          ],
          containers: [container(image)],
          volumes: [
            { name: 'config', configMap: { name, items: [{ key: 'Corefile', path: 'Corefile' }] } },
            { name: 'custom', configMap: { name: 'coredns-custom', optional: true } },
          ],
        },
      },
    },
  }
}

function container(image: string) {
  return {
    name,
    image,
    imagePullPolicy: 'IfNotPresent',
    args: ['-conf', '/etc/coredns/Corefile'],
    resources: { limits: { memory: '170Mi' }, requests: { cpu: '100m', memory: '70Mi' } },
    ports: [
      { name: 'dns', containerPort: 53, protocol: 'UDP' },
      { name: 'dns-tcp', containerPort: 53, protocol: 'TCP' },
      { name: 'metrics', containerPort: 9153, protocol: 'TCP' },
    ],
    securityContext: {
      allowPrivilegeEscalation: false,
      capabilities: { add: ['NET_BIND_SERVICE'], drop: ['ALL'] },
      readOnlyRootFilesystem: true,
    },
    livenessProbe: { httpGet: { path: '/health', port: 8080 }, initialDelaySeconds: 60, timeoutSeconds: 5 },
    readinessProbe: { httpGet: { path: '/ready', port: 8181 }, periodSeconds: 2 },
    volumeMounts: [
      { name: 'config', mountPath: '/etc/coredns', readOnly: true },
      { name: 'custom', mountPath: '/etc/coredns-custom', readOnly: true },
    ],
  }
}

function service({ clusterDns, otherClusterDns }: CorednsOptions): Manifest {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name: 'kube-dns',
      namespace,
      labels: { ...labels, 'kubernetes.io/cluster-service': 'true', 'kubernetes.io/name': 'CoreDNS' },
      annotations: { 'prometheus.io/port': '9153', 'prometheus.io/scrape': 'true' },
    },
    spec: {
      selector: labels,
      clusterIP: clusterDns,
      ...(otherClusterDns !== undefined && {
        clusterIPs: [clusterDns, otherClusterDns],
        ipFamilyPolicy: 'PreferDualStack',
      }),
      ports: [
        { name: 'dns', port: 53, targetPort: 53, protocol: 'UDP' },
        { name: 'dns-tcp', port: 53, targetPort: 53, protocol: 'TCP' },
        { name: 'metrics', port: 9153, targetPort: 9153, protocol: 'TCP' },
      ],
    },
  }
}
