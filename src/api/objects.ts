/** What tells one object of a cluster from all others. */
export interface ObjectName {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string }
}

/** A Kubernetes object as it is applied; the server checks the rest. */
export interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly [key: string]: unknown }
  readonly [key: string]: unknown
}

/** What the API server has of one; whoever wrote it. */
export interface LiveObject {
  readonly metadata: {
    readonly uid: string
    readonly resourceVersion: string
    readonly annotations?: Readonly<Record<string, string>>
    readonly managedFields?: readonly { readonly manager?: string; readonly operation?: string }[]
  }
  readonly [key: string]: unknown
}

/** The resource names of the kinds that are applied, or asked for by name. */
const resources: Readonly<Record<string, string>> = {
  APIService: 'apiservices',
  ClusterRole: 'clusterroles',
  ClusterRoleBinding: 'clusterrolebindings',
  ConfigMap: 'configmaps',
  Deployment: 'deployments',
  Endpoints: 'endpoints',
  Role: 'roles',
  RoleBinding: 'rolebindings',
  Secret: 'secrets',
  Service: 'services',
  ServiceAccount: 'serviceaccounts',
  StorageClass: 'storageclasses',
  ValidatingAdmissionPolicy: 'validatingadmissionpolicies',
  ValidatingAdmissionPolicyBinding: 'validatingadmissionpolicybindings',
}

/** The object's path at the API server: /apis/apps/v1/namespaces/kube-system/deployments/coredns. */
export function objectPath({ apiVersion, kind, metadata }: ObjectName): string {
  const resource = resources[kind]
  if (resource === undefined) throw new Error(`bug: no resource name for kind ${kind}`)
  const group = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`
  const namespace = metadata.namespace === undefined ? '' : `/namespaces/${metadata.namespace}`
  return `${group}${namespace}/${resource}/${metadata.name}`
}

export function isKnownKind({ kind }: ObjectName): boolean {
  return Object.hasOwn(resources, kind)
}
