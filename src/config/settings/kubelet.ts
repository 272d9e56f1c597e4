import { isAbsolute } from 'node:path'
import type { RoleName } from '../roles.ts'
import { socketPathLimitBytes } from '../paths.ts'
import { address, choice, directory, duration, file } from '../table/kinds.ts'
import { Refused, type ValueKind } from '../table/option.ts'
import type { Rows } from './rows.ts'

const group = 'Kubelet alone'
const kubeletAlone = ['kubelet'] as const satisfies readonly RoleName[]

const shortestDelayMs = 100

/** What a kubelet is told that has no cluster. */
export interface KubeletAloneSettings {
  /** Absolute. */
  readonly manifests: string
  /** Absolute. */
  readonly kubeletConfig?: string
  readonly profile: 'closed' | 'container'
  readonly kubeletBindAddress: string
  readonly containerRuntime: 'containerd' | 'docker'
  /** The path of a socket. */
  readonly dockerEndpoint: string
  /** The path of a socket; undefined: the daemon runs what containerRuntime says. */
  readonly containerRuntimeEndpoint?: string
  /** In milliseconds. */
  readonly restartDelay: number
}

const socketOf = (whose: string): ValueKind<string> => ({
  placeholder: 'SOCKET',
  allowed: `unix:///PATH or /PATH of ${whose}, of at most ${socketPathLimitBytes} bytes`,
  parse(text) {
    const path = text.replace(/^unix:\/\//, '')
    const isPath = isAbsolute(path) && !path.endsWith('/') && !/\p{Cc}/u.test(path)
    return isPath && Buffer.byteLength(path) <= socketPathLimitBytes ? path : new Refused()
  },
})

const delay: ValueKind<number> = {
  ...duration,
  allowed: `${duration.allowed}, of ${shortestDelayMs}ms at least`,
  parse(text) {
    const value = duration.parse(text)
    return typeof value === 'number' && value < shortestDelayMs ? new Refused() : value
  },
}

export const kubeletSettings: Rows<KubeletAloneSettings> = {
  manifests: {
    group,
    description: 'The directory of static pods: a file with a Pod in YAML or JSON for each.',
    kind: directory,
    default: '/etc/kubernetes/manifests',
    roles: kubeletAlone,
    change: 'Pods of the former one end at the next start, and those of the new one begin.',
  },
  'kubelet-config': {
    group,
    description:
      "A KubeletConfiguration whose keys take the place of the kubelet's own; those that are left away stay.",
    kind: file,
    defaultText: 'none',
    roles: kubeletAlone,
  },
  profile: {
    group,
    description:
      'Who may ask the kubelet on its port, and so is root on this machine: holders of a certificate of its own authority, or, as in a container of its own, everybody who reaches it, which is on loopback every user and every pod of the host network. The second one also leaves cgroups and swap of the machine as they are.',
    kind: choice('closed', 'container'),
    default: 'closed',
    roles: kubeletAlone,
  },
  'kubelet-bind-address': {
    group,
    description: 'The address on which the kubelet listens.',
    kind: address,
    defaultText: '0.0.0.0, and with the profile container 127.0.0.1',
    roles: kubeletAlone,
  },
  'container-runtime': {
    group,
    description:
      'What pods are made of: containers of a containerd that the daemon runs, or of the Docker Engine of this machine, in front of which the daemon runs cri-dockerd.',
    kind: choice('containerd', 'docker'),
    default: 'containerd',
    roles: kubeletAlone,
    change: 'Pods in the former runtime stay there: end them first, with k8s stop --pods.',
  },
  'docker-endpoint': {
    group,
    description: "With container-runtime docker: Docker's own socket.",
    kind: socketOf("Docker's socket"),
    default: '/var/run/docker.sock',
    roles: kubeletAlone,
  },
  'container-runtime-endpoint': {
    group,
    description:
      "The CRI socket of a runtime that others run, with the network that it gives to pods; the daemon's own containerd is not started then.",
    kind: socketOf("the runtime's CRI socket"),
    defaultText: 'none: the daemon runs what container-runtime says',
    roles: kubeletAlone,
    change: 'Pods in the former runtime stay there: end them first, with k8s stop --pods.',
  },
  'restart-delay': {
    group,
    description: 'How long after its end the kubelet, or containerd, is started again.',
    kind: delay,
    default: 1000,
    defaultText: '1s',
    roles: kubeletAlone,
  },
}
