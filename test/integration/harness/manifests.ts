import { busyboxArchive, imageName } from './images.ts'

export const busybox = imageName(busyboxArchive)

/** Parts of a container and of a pod that a test adds to what every pod here has. */
export interface PodParts {
  readonly container?: object
  readonly spec?: object
  readonly labels?: Readonly<Record<string, string>>
}

/** Ends at once on SIGTERM, as a shell that is pid 1 does only when it is told to. */
export const sleepForever = 'trap exit TERM; while :; do sleep 1; done'

/** A pod whose only container, named like the pod, runs a shell line. */
export function pod(name: string, line: string, { labels = {}, ...parts }: PodParts = {}) {
  return { apiVersion: 'v1', kind: 'Pod', metadata: { name, labels }, spec: podSpec(name, line, parts) }
}

export function podSpec(name: string, line: string, { container = {}, spec = {} }: PodParts = {}) {
  return {
    // Nothing in these tests waits for a shell to end by itself.
    terminationGracePeriodSeconds: 2,
    containers: [{ name, image: busybox, command: ['sh', '-c', line], ...container }],
    ...spec,
  }
}

/** A web server that answers with the pod's name. */
export const webServer =
  'mkdir -p /tmp/www && hostname >/tmp/www/index.html && trap exit TERM && httpd -f -p 8080 -h /tmp/www & wait'

export function deployment(
  name: string,
  line: string,
  { replicas = 1, ...parts }: PodParts & { replicas?: number } = {},
) {
  const labels = { app: name }
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: podSpec(name, line, parts) },
    },
  }
}

/** What a pod claims of the default StorageClass, or of another one. */
export function claim(name: string, spec: object = {}) {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Mi' } }, ...spec },
  }
}

/** A pod has it at /data. */
export const atData = (claimName: string) => ({
  container: { volumeMounts: [{ name: 'data', mountPath: '/data' }] },
  spec: { volumes: [{ name: 'data', persistentVolumeClaim: { claimName } }] },
})

export function service(name: string, { port, targetPort }: { port: number; targetPort: number }) {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name },
    spec: { selector: { app: name }, ports: [{ port, targetPort }] },
  }
}

/** What `kubectl get pod -o json` says, as far as tests look at it. */
export interface Pod {
  readonly metadata: { readonly name: string; readonly uid: string }
  readonly spec: { readonly nodeName?: string }
  readonly status: {
    readonly phase: string
    readonly podIP?: string
    readonly startTime: string
    readonly containerStatuses?: readonly ContainerStatus[]
  }
}

export interface ContainerStatus {
  readonly ready: boolean
  readonly restartCount: number
  readonly containerID: string
  readonly state: { readonly running?: { readonly startedAt: string }; readonly terminated?: Terminated }
  readonly lastState: { readonly terminated?: Terminated }
}

export interface Terminated {
  readonly reason: string
  readonly exitCode: number
}
