import type { Manifest } from '../api/objects.ts'
import type { Api } from '../api/client.ts'
import { clusterPlacement } from './placement.ts'
import { isOurs } from './reconcile.ts'

interface MetricsServerOptions {
  readonly image: string
  /** What it serves with, PEM: of the cluster's authority, for `servedName`. */
  readonly certificate: string
  readonly key: string
}

const name = 'metrics-server'
const namespace = 'kube-system'
const labels = { 'k8s-app': name }
const group = 'metrics.k8s.io'
const rbac = 'rbac.authorization.k8s.io'

/** The name that the API server asks for, whatever address it goes to. */
export const servedName = `${name}.${namespace}.svc`

export const metricsSecret = {
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'metrics-server-tls', namespace },
} as const

const apiName = {
  apiVersion: 'apiregistration.k8s.io/v1',
  kind: 'APIService',
  metadata: { name: `v1beta1.${group}` },
} as const

/** Of the kubelets' figures k3s takes a sample every 15 s, and the autoscaler looks as often. */
const resolution = '15s'
const port = 10250
const tlsDirectory = '/etc/metrics-server'

/** What nodes and pods use, for `kubectl top` and HorizontalPodAutoscalers; who asks for it finds it by `metricsApi`. */
export function metricsServer(options: MetricsServerOptions): Manifest[] {
  return [...access(), secret(options), deployment(options), service()]
}

/**
 * The group of the API that metrics-server serves. Where it is away, a group that cannot be asked for would hold up what looks at all
 * groups, such as the end of every Namespace: so it is there only as long as something serves it.
 */
export function metricsApi({ authority }: { authority: string }): Manifest[] {
  return [
    {
      ...apiName,
      spec: {
        group,
        version: 'v1beta1',
        groupPriorityMinimum: 100,
        versionPriority: 100,
        service: { name, namespace, port: 443 },
        // Of one that others had insecure, too.
        insecureSkipTLSVerify: false,
        caBundle: Buffer.from(authority).toString('base64'),
      },
    },
  ]
}

function access(): Manifest[] {
  const subjects = [{ kind: 'ServiceAccount', name, namespace }]
  const bound = (binding: string, role: string): Manifest => ({
    apiVersion: `${rbac}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: { name: binding },
    roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: role },
    subjects,
  })
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRole',
      metadata: { name: 'system:metrics-server' },
      rules: [
        { apiGroups: [''], resources: ['nodes/metrics'], verbs: ['get'] },
        { apiGroups: [''], resources: ['pods', 'nodes'], verbs: ['get', 'list', 'watch'] },
      ],
    },
    bound('system:metrics-server', 'system:metrics-server'),
    // Who asks, and whether he may, it asks the API server.
    bound('metrics-server:system:auth-delegator', 'system:auth-delegator'),
    {
      apiVersion: `${rbac}/v1`,
      kind: 'RoleBinding',
      metadata: { name: 'metrics-server-auth-reader', namespace },
      roleRef: { apiGroup: rbac, kind: 'Role', name: 'extension-apiserver-authentication-reader' },
      subjects,
    },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRole',
      metadata: {
        name: 'system:aggregated-metrics-reader',
        labels: Object.fromEntries(
          ['view', 'edit', 'admin'].map((role) => [`${rbac}/aggregate-to-${role}`, 'true']),
        ),
      },
      rules: [{ apiGroups: [group], resources: ['pods', 'nodes'], verbs: ['get', 'list', 'watch'] }],
    },
  ]
}

function secret({ certificate, key }: MetricsServerOptions): Manifest {
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  return {
    ...metricsSecret,
    type: 'kubernetes.io/tls',
    data: { 'tls.crt': base64(certificate), 'tls.key': base64(key) },
  }
}

function deployment({ image }: MetricsServerOptions): Manifest {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace, labels },
    spec: {
      // No replicas: as with CoreDNS.
      revisionHistoryLimit: 1,
      selector: { matchLabels: labels },
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0 } },
      template: {
        metadata: { labels },
        spec: {
          ...clusterPlacement,
          serviceAccountName: name,
          securityContext: {
            runAsNonRoot: true,
            fsGroup: 65_532,
            seccompProfile: { type: 'RuntimeDefault' },
          },
          containers: [container(image)],
          volumes: [{ name: 'tls', secret: { secretName: metricsSecret.metadata.name, defaultMode: 0o440 } }],
        },
      },
    },
  }
}

function container(image: string) {
  const probe = { scheme: 'HTTPS', port: 'https' }
  return {
    name,
    image,
    imagePullPolicy: 'IfNotPresent',
    args: [
      `--secure-port=${port}`,
      `--tls-cert-file=${tlsDirectory}/tls.crt`,
      `--tls-private-key-file=${tlsDirectory}/tls.key`,
      // As the API server asks kubelets, whose certificates are of the same authority.
      '--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname',
      '--kubelet-use-node-status-port',
      '--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt',
      `--metric-resolution=${resolution}`,
    ],
    resources: { requests: { cpu: '20m', memory: '50Mi' } },
    ports: [{ name: 'https', containerPort: port, protocol: 'TCP' }],
    securityContext: {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      readOnlyRootFilesystem: true,
    },
    livenessProbe: { httpGet: { path: '/livez', ...probe }, initialDelaySeconds: 60, timeoutSeconds: 5 },
    readinessProbe: { httpGet: { path: '/readyz', ...probe }, periodSeconds: 5, timeoutSeconds: 5 },
    volumeMounts: [{ name: 'tls', mountPath: tlsDirectory, readOnly: true }],
  }
}

function service(): Manifest {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, labels: { ...labels, 'kubernetes.io/cluster-service': 'true' } },
    spec: {
      selector: labels,
      ports: [{ name: 'https', port: 443, targetPort: 'https', protocol: 'TCP', appProtocol: 'https' }],
    },
  }
}

/** Whether somebody else serves the group: a metrics-server of the user's own, or what k3s has left. It stays his. */
export async function isOfOthers(api: Api): Promise<boolean> {
  const live = await api.get(apiName)
  return live !== undefined && !isOurs(live)
}

/** Whether a pod of it is ready. */
export async function servesMetrics(api: Api): Promise<boolean> {
  const { subsets = [] } = ((await api.get(endpoints)) ?? {}) as {
    subsets?: readonly { readonly addresses?: readonly unknown[] }[]
  }
  return subsets.some(({ addresses = [] }) => addresses.length > 0)
}

/** What the API server of this machine says of it; undefined: it reaches it. */
export async function metricsProblem(api: Api): Promise<string | undefined> {
  const live = await api.get(apiName)
  if (live === undefined) return 'none of its pods is ready'
  const { conditions = [] } = (live['status'] ?? {}) as {
    conditions?: readonly { readonly type: string; readonly status: string; readonly message?: string }[]
  }
  const available = conditions.find(({ type }) => type === 'Available')
  if (available?.status === 'True') return undefined
  const reason = available?.message ?? 'the API server has not asked it yet'
  return isOurs(live)
    ? reason
    : `APIService ${apiName.metadata.name} is not of this add-on, and does not work (${reason}): mend what serves it, remove it, or disable metrics-server`
}

const endpoints = { apiVersion: 'v1', kind: 'Endpoints', metadata: { name, namespace } } as const
