import type { Manifest } from '../api/objects.ts'

/**
 * What the API server itself may do at kubelets (logs, exec, port-forward): its client certificate is
 * no member of system:masters, so the built-in role must be bound to it.
 */
export function kubeletAccess({ user }: { user: string }): Manifest[] {
  return [
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'k8s:apiserver-kubelet-client' },
      roleRef: {
        apiGroup: 'rbac.authorization.k8s.io',
        kind: 'ClusterRole',
        name: 'system:kubelet-api-admin',
      },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: user }],
    },
  ]
}
