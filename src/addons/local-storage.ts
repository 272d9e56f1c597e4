import { createHash } from 'node:crypto'
import type { Manifest } from '../api/objects.ts'
import type { Api } from '../api/client.ts'
import { clusterPlacement } from './placement.ts'

interface LocalStorageOptions {
  readonly image: string
  /** It has the program /volume (components/pause), and is on every node. */
  readonly helperImage: string
  /** The directory of volumes, the same on every node that has none of its own in the user's ConfigMap. */
  readonly path: string
}

const name = 'local-path-provisioner'
const namespace = 'kube-system'
const labels = { app: name }
const configName = 'local-path-config'
const configDirectory = '/etc/config'
const provisioner = 'rancher.io/local-path'
const rbac = 'rbac.authorization.k8s.io'

/** A node that is short of memory or disk lets these come all the same: they make room. */
const helperPriority = 'system-node-critical'
/** Of a volume with so many files that it takes longer, the rest goes with the next try. */
const helperTimeoutSeconds = 120

/** PersistentVolumes in directories of the nodes, by local-path-provisioner (github.com/rancher/local-path-provisioner). */
export function localStorage(options: LocalStorageOptions): Manifest[] {
  const data = configuration(options)
  return [
    ...access(),
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: configName, namespace }, data },
    deployment(options, data),
    storageClass,
  ]
}

/** Why claims are not answered; undefined: its pod runs. What becomes of a claim is told by the claim's own Events. */
export async function storageProblem(api: Api): Promise<string | undefined> {
  const live = await api.get({ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name, namespace } })
  const { availableReplicas = 0 } = (live?.['status'] ?? {}) as { availableReplicas?: number }
  return availableReplicas > 0 ? undefined : 'its pod is not ready'
}

/** Who may make pods with directories of the node is root on all nodes: nothing but the provisioner has this account. */
function access(): Manifest[] {
  const subjects = [{ kind: 'ServiceAccount', name, namespace }]
  const core = (resources: readonly string[], ...verbs: string[]) => ({ apiGroups: [''], resources, verbs })
  const roles = [
    {
      kind: 'ClusterRole',
      metadata: { name: `system:${name}` },
      rules: [
        core(['persistentvolumes'], 'list', 'watch', 'create', 'delete'),
        // The Node that was chosen for a claim may be gone: another one is asked for.
        core(['persistentvolumeclaims'], 'list', 'watch', 'update'),
        core(['nodes'], 'get'),
        core(['events'], 'create', 'patch'),
        { apiGroups: ['storage.k8s.io'], resources: ['storageclasses'], verbs: ['list', 'watch'] },
      ],
    },
    {
      kind: 'Role',
      metadata: { name, namespace },
      rules: [core(['pods'], 'get', 'create', 'delete'), core(['pods/log'], 'get')],
    },
  ] as const
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } },
    ...roles.flatMap(({ kind, metadata, rules }) => [
      { apiVersion: `${rbac}/v1`, kind, metadata, rules },
      {
        apiVersion: `${rbac}/v1`,
        kind: `${kind}Binding`,
        metadata,
        roleRef: { apiGroup: rbac, kind, name: metadata.name },
        subjects,
      },
    ]),
  ]
}

/** What its users change where nodes keep volumes elsewhere: JSON, which is YAML as well. */
function configuration({ helperImage, path }: LocalStorageOptions) {
  const text = (value: unknown) => `${JSON.stringify(value, undefined, 2)}\n`
  return {
    'config.json': text({
      nodePathMap: [{ node: 'DEFAULT_PATH_FOR_NON_LISTED_NODES', paths: [path] }],
      setupCommand: '/volume',
      teardownCommand: '/volume',
      cmdTimeoutSeconds: helperTimeoutSeconds,
    }),
    'helperPod.yaml': text(helperPod({ helperImage, path })),
  }
}

/** The provisioner adds its node, the directory, and that it comes in spite of all taints. */
function helperPod({ helperImage, path }: Pick<LocalStorageOptions, 'helperImage' | 'path'>) {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'helper-pod', labels: { app: `${name}-helper` } },
    spec: {
      priorityClassName: helperPriority,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      containers: [
        {
          // The name whose output the provisioner reads.
          name: 'helper-pod',
          image: helperImage,
          imagePullPolicy: 'IfNotPresent',
          // Where volumes may be: the program touches nothing else.
          env: [{ name: 'VOLUME_PATHS', value: path }],
          // Whatever the node has left is enough.
          resources: { requests: { cpu: '0', memory: '0' }, limits: { memory: '64Mi' } },
          terminationMessagePolicy: 'FallbackToLogsOnError',
          securityContext: {
            // What is in a volume belongs to whoever ran in its pods.
            runAsUser: 0,
            runAsGroup: 0,
            allowPrivilegeEscalation: false,
            capabilities: { add: ['DAC_OVERRIDE', 'FOWNER'], drop: ['ALL'] },
            readOnlyRootFilesystem: true,
            seccompProfile: { type: 'RuntimeDefault' },
          },
        },
      ],
    },
  }
}

function deployment({ image }: LocalStorageOptions, data: Readonly<Record<string, string>>): Manifest {
  const configHash = createHash('sha256').update(JSON.stringify(data)).digest('hex').slice(0, 16)
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace, labels },
    spec: {
      // Two would do the same work, as neither asks who leads.
      replicas: 1,
      revisionHistoryLimit: 1,
      selector: { matchLabels: labels },
      strategy: { type: 'Recreate' },
      template: {
        // It reads what changed anyway, but minutes later.
        metadata: { labels, annotations: { 'k8s.local/config-hash': configHash } },
        spec: {
          ...clusterPlacement,
          serviceAccountName: name,
          enableServiceLinks: false,
          securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
          containers: [container(image)],
          volumes: [{ name: 'config', configMap: { name: configName } }],
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
    // Said although the image says it: what a k3s that was taken over has there would win.
    command: [`/${name}`],
    args: [
      'start',
      `--config=${configDirectory}/config.json`,
      `--helper-pod-file=${configDirectory}/helperPod.yaml`,
      `--namespace=${namespace}`,
      // Of the helper pods, which get no token.
      '--service-account-name=default',
      // A node may be away for long: what is to be removed from it is, when it is back.
      '--provisioning-retry-count=0',
      '--deletion-retry-count=0',
    ],
    env: [{ name: 'CONFIG_MOUNT_PATH', value: configDirectory }],
    resources: { requests: { cpu: '10m', memory: '30Mi' }, limits: { memory: '256Mi' } },
    securityContext: {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      readOnlyRootFilesystem: true,
    },
    volumeMounts: [{ name: 'config', mountPath: configDirectory, readOnly: true }],
  }
}

/** Of type `local`: a directory that is missing is told by the kubelet, which would make an empty one for a `hostPath`. */
const storageClass: Manifest = {
  apiVersion: 'storage.k8s.io/v1',
  kind: 'StorageClass',
  metadata: {
    name: 'local-path',
    annotations: { 'storageclass.kubernetes.io/is-default-class': 'true', defaultVolumeType: 'local' },
  },
  provisioner,
  reclaimPolicy: 'Delete',
  volumeBindingMode: 'WaitForFirstConsumer',
}
