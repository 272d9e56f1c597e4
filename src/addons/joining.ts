/*
 * What machines learn of a cluster that they join, and what they may do in it: the objects of `kubeadm init`, under the
 * names it gives them (cmd/kubeadm/app/phases/{bootstraptoken,uploadconfig,kubelet}), so that `kubeadm join` works, too.
 *
 *    anybody         reads cluster-info, while `clusterInfoAccess` is there; whoever has a token sees by its signature that
 *                    it is true
 *    bootstrappers   read kubeadm-config, kubelet-config and Nodes, and ask for the certificate of a Node
 *    nodes           read the two, renew their certificates, see Services as kube-proxy does, and what NetworkPolicy is about
 *
 * kubeadm's binding that lets Kubernetes approve every bootstrapper's request is not among them: src/cluster/join does
 * that, and looks at whose name is asked for.
 */
import { renderYaml } from '../base/yaml.ts'
import type { Manifest } from '../api/objects.ts'
import { refuseRemovedNodes } from './removed-nodes.ts'

export interface JoiningOptions {
  /** How others reach the API server: https://ADDRESS:PORT */
  readonly server: string
  /** PEM of what servers and clients are trusted by; kubeadm knows one authority for both. */
  readonly authorities: readonly string[]
  /** v1.37.1 */
  readonly kubernetesVersion: string
  readonly clusterCidr: string
  readonly serviceCidr: string
  readonly clusterDomain: string
  /** How all nodes lead to each other's pods; kubeadm knows nothing of it. */
  readonly networkBackend: string
  /** Whether nodes enforce NetworkPolicy, and so see policies, pods and namespaces. */
  readonly networkPolicy: boolean
  /** A KubeletConfiguration as YAML. */
  readonly kubeletConfig: string
}

/** KEP-130, and kubeadm's name for those who join as nodes. */
export const bootstrappersGroup = 'system:bootstrappers:kubeadm:default-node-token'
export const nodesGroup = 'system:nodes'

const rbac = 'rbac.authorization.k8s.io'
const apiVersion = `${rbac}/v1`
const clusterInfoRole = { name: 'kubeadm:bootstrap-signer-clusterinfo', namespace: 'kube-public' }

export const clusterInfoName = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'cluster-info', namespace: 'kube-public' },
} as const

export function joining(options: JoiningOptions): Manifest[] {
  const readers = [group(bootstrappersGroup), group(nodesGroup)]
  return [
    { ...clusterInfoName, data: { kubeconfig: clusterInfo(options) } },
    role(clusterInfoRole, readConfigMap('cluster-info')),
    ...sharedConfigMap({
      name: 'kubeadm-config',
      data: {
        ClusterConfiguration: clusterConfiguration(options),
        'network-backend': options.networkBackend,
      },
      role: 'kubeadm:nodes-kubeadm-config',
      readers,
    }),
    ...sharedConfigMap({
      name: 'kubelet-config',
      data: { kubelet: options.kubeletConfig },
      role: 'kubeadm:kubelet-config',
      readers,
    }),
    {
      apiVersion,
      kind: 'ClusterRole',
      metadata: { name: 'kubeadm:get-nodes' },
      rules: [{ apiGroups: [''], resources: ['nodes'], verbs: ['get'] }],
    },
    clusterBinding('kubeadm:get-nodes', 'kubeadm:get-nodes', bootstrappersGroup),
    clusterBinding('kubeadm:kubelet-bootstrap', 'system:node-bootstrapper', bootstrappersGroup),
    clusterBinding(
      'kubeadm:node-autoapprove-certificate-rotation',
      'system:certificates.k8s.io:certificatesigningrequests:selfnodeclient',
      nodesGroup,
    ),
    // An agent's kube-proxy shows the kubelet's certificate.
    clusterBinding('k8s:node-proxier', 'system:node-proxier', nodesGroup),
    ...refuseRemovedNodes(nodesGroup),
    ...(options.networkPolicy ? policyReaders : []),
  ]
}

/** Any pod may be a peer, by its labels and those of its namespace; pods of other nodes, too. */
const policyReaders: readonly Manifest[] = [
  {
    apiVersion,
    kind: 'ClusterRole',
    metadata: { name: 'k8s:network-policy' },
    rules: [
      { apiGroups: ['networking.k8s.io'], resources: ['networkpolicies'], verbs: ['list', 'watch'] },
      { apiGroups: [''], resources: ['pods', 'namespaces'], verbs: ['list', 'watch'] },
    ],
  },
  clusterBinding('k8s:network-policy', 'k8s:network-policy', nodesGroup),
]

/** Lets those without credentials read cluster-info. */
export const clusterInfoAccess: Manifest = {
  apiVersion,
  kind: 'RoleBinding',
  metadata: clusterInfoRole,
  roleRef: { apiGroup: rbac, kind: 'Role', name: clusterInfoRole.name },
  subjects: [{ apiGroup: rbac, kind: 'User', name: 'system:anonymous' }],
}

/** A kubeconfig of one cluster without a name, and of no user. */
function clusterInfo({ server, authorities }: JoiningOptions): string {
  const bundle = Buffer.from(authorities.join('')).toString('base64')
  return renderYaml({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: '', cluster: { 'certificate-authority-data': bundle, server } }],
    contexts: [],
    'current-context': '',
    preferences: {},
    users: [],
  })
}

function clusterConfiguration(options: JoiningOptions): string {
  return renderYaml({
    apiVersion: 'kubeadm.k8s.io/v1beta4',
    kind: 'ClusterConfiguration',
    clusterName: 'kubernetes',
    kubernetesVersion: options.kubernetesVersion,
    networking: {
      dnsDomain: options.clusterDomain,
      podSubnet: options.clusterCidr,
      serviceSubnet: options.serviceCidr,
    },
  })
}

interface SharedConfigMap {
  readonly name: string
  readonly data: Readonly<Record<string, string>>
  readonly role: string
  readonly readers: readonly object[]
}

function sharedConfigMap({ name, data, role: roleName, readers }: SharedConfigMap): Manifest[] {
  const namespace = 'kube-system'
  const metadata = { name: roleName, namespace }
  return [
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace }, data },
    role(metadata, readConfigMap(name)),
    {
      apiVersion,
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup: rbac, kind: 'Role', name: roleName },
      subjects: readers,
    },
  ]
}

function role(metadata: Manifest['metadata'], rule: object): Manifest {
  return { apiVersion, kind: 'Role', metadata, rules: [rule] }
}

function readConfigMap(name: string): object {
  return { apiGroups: [''], resources: ['configmaps'], resourceNames: [name], verbs: ['get'] }
}

function clusterBinding(name: string, clusterRole: string, to: string): Manifest {
  return {
    apiVersion,
    kind: 'ClusterRoleBinding',
    metadata: { name },
    roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: clusterRole },
    subjects: [group(to)],
  }
}

function group(name: string): object {
  return { apiGroup: rbac, kind: 'Group', name }
}
