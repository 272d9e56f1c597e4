import { expect, test } from 'vitest'
import { localStorage, storageProblem } from '../../../src/addons/local-storage.ts'
import { type LiveObject, type Manifest, objectPath } from '../../../src/api/objects.ts'
import type { Api } from '../../../src/api/client.ts'

const options = {
  image: 'k8s.local/local-path-provisioner:1',
  helperImage: 'k8s.local/pause:1',
  path: '/var/lib/k8s/storage',
}
const manifests = localStorage(options)

function only(kind: string, of: readonly Manifest[] = manifests): Manifest {
  const [found, ...others] = of.filter((manifest) => manifest.kind === kind)
  if (found === undefined || others.length > 0) throw new Error(`not one ${kind}`)
  return found
}

/** What the provisioner reads: JSON is YAML. */
function parsed<Content>(key: string, of?: readonly Manifest[]): Content {
  return JSON.parse((only('ConfigMap', of)['data'] as Record<string, string>)[key] ?? '') as Content
}

test('every object of it has a path at the API server', () => {
  expect(manifests.map(objectPath)).toEqual([
    '/api/v1/namespaces/kube-system/serviceaccounts/local-path-provisioner',
    '/apis/rbac.authorization.k8s.io/v1/clusterroles/system:local-path-provisioner',
    '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:local-path-provisioner',
    '/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/local-path-provisioner',
    '/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings/local-path-provisioner',
    '/api/v1/namespaces/kube-system/configmaps/local-path-config',
    '/apis/apps/v1/namespaces/kube-system/deployments/local-path-provisioner',
    '/apis/storage.k8s.io/v1/storageclasses/local-path',
  ])
})

test('its class is the default one, waits for a pod, and removes what is not claimed any more', () => {
  expect(only('StorageClass')).toMatchObject({
    metadata: { annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' } },
    provisioner: 'rancher.io/local-path',
    reclaimPolicy: 'Delete',
    volumeBindingMode: 'WaitForFirstConsumer',
  })
})

test('volumes are made where the setting says, by a program and no shell, which is held to it', () => {
  expect(parsed('config.json')).toMatchObject({
    nodePathMap: [{ node: 'DEFAULT_PATH_FOR_NON_LISTED_NODES', paths: [options.path] }],
    setupCommand: '/volume',
    teardownCommand: '/volume',
  })
  const { spec } = parsed<{ spec: { containers: object[] } }>('helperPod.yaml')
  expect(spec).toMatchObject({
    automountServiceAccountToken: false,
    priorityClassName: 'system-node-critical',
  })
  expect(spec.containers).toMatchObject([
    { name: 'helper-pod', image: options.helperImage, env: [{ name: 'VOLUME_PATHS', value: options.path }] },
  ])
})

test('neither it nor its helpers are privileged, and it may not read what it does not need', () => {
  const text = JSON.stringify(manifests)
  for (const word of [
    '"privileged"',
    'hostNetwork',
    'hostPID',
    '"*"',
    'secrets',
    'configmaps',
    'patch","update',
  ])
    expect(text).not.toContain(word)
  const { template } = only('Deployment')['spec'] as { template: { spec: object } }
  expect(template.spec).toMatchObject({
    securityContext: { runAsNonRoot: true },
    containers: [{ securityContext: { readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } } }],
  })
})

test('it starts anew when what it reads is another, and not otherwise', () => {
  const hashOf = (path: string) =>
    JSON.stringify(only('Deployment', localStorage({ ...options, path }))['spec']).match(
      /config-hash":"(\w+)"/,
    )?.[1]
  expect(hashOf(options.path)).toBe(hashOf(options.path))
  expect(hashOf('/srv/volumes')).not.toBe(hashOf(options.path))
})

test('a provisioner that does not run is told', async () => {
  const problemOf = (live: object | undefined) =>
    storageProblem({ get: async () => live as LiveObject | undefined } as unknown as Api)
  expect(await problemOf({ status: { availableReplicas: 1 } })).toBeUndefined()
  for (const live of [undefined, {}, { status: { unavailableReplicas: 1 } }])
    expect(await problemOf(live)).toBe('its pod is not ready')
})
