/*
 * Kubernetes cannot take a certificate back: the kubelet of a Node that was deleted registers it anew with its next start. Who removes
 * a Node for good (`k8s node remove`) has its name written down, and as long as it stands there,
 *
 *    the API server   registers no Node of that name for a kubelet (ValidatingAdmissionPolicy, KEP-3488)
 *    its machine      reads it, and ends (cluster/tasks/join.ts)
 *
 * until a machine joins under that name with a token (cluster/join/approver.ts).
 */
import type { Manifest } from '../api/objects.ts'

/** The names of removed Nodes, each with when it was. */
export const removedNodes = { namespace: 'kube-system', name: 'k8s-removed-nodes' } as const

const { namespace, name } = removedNodes
const rbac = 'rbac.authorization.k8s.io'
const admission = 'admissionregistration.k8s.io/v1'

/** nodesGroup: that of kubelets. */
export function refuseRemovedNodes(nodesGroup: string): Manifest[] {
  return [
    {
      apiVersion: `${rbac}/v1`,
      kind: 'Role',
      metadata: removedNodes,
      rules: [{ apiGroups: [''], resources: ['configmaps'], resourceNames: [name], verbs: ['get'] }],
    },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'RoleBinding',
      metadata: removedNodes,
      roleRef: { apiGroup: rbac, kind: 'Role', name },
      subjects: [{ apiGroup: rbac, kind: 'Group', name: nodesGroup }],
    },
    {
      apiVersion: admission,
      kind: 'ValidatingAdmissionPolicy',
      metadata: { name },
      spec: {
        failurePolicy: 'Fail',
        paramKind: { apiVersion: 'v1', kind: 'ConfigMap' },
        matchConstraints: {
          resourceRules: [
            { apiGroups: [''], apiVersions: ['v1'], resources: ['nodes'], operations: ['CREATE'] },
          ],
        },
        // Whoever may write Nodes as an admin has the last word.
        matchConditions: [{ name: 'kubelets', expression: `'${nodesGroup}' in request.userInfo.groups` }],
        validations: [
          {
            expression: '!has(params.data) || !(object.metadata.name in params.data)',
            messageExpression:
              "'the Node ' + object.metadata.name + ' was removed for good: reset that machine, and join it with a token'",
            reason: 'Forbidden',
          },
        ],
      },
    },
    {
      apiVersion: admission,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata: { name },
      spec: {
        policyName: name,
        // While nothing was removed there is no such ConfigMap.
        paramRef: { name, namespace, parameterNotFoundAction: 'Allow' },
        validationActions: ['Deny'],
      },
    },
  ]
}
