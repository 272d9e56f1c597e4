import { clusterNodes, nodes } from '../roles.ts'
import { socketPathLimitBytes } from '../paths.ts'
import {
  boolean,
  choice,
  label,
  nodeAddress,
  nodeName,
  ofEachFamily,
  socketDirectory,
  taint,
} from '../table/kinds.ts'
import type { Rows } from './rows.ts'

const group = 'Node'

export interface NodeSettings {
  readonly nodeName: string
  /** One, or one of each family with a comma between them. What it leaves open is the machine's (node/facts/node-address.ts). */
  readonly nodeIp?: string
  /** key=value */
  readonly nodeLabel: readonly string[]
  /** key=value:Effect or key:Effect */
  readonly nodeTaint: readonly string[]
  /** Absolute. */
  readonly kubeletRootDir: string
  /** Off, pods keep the /etc/hosts of their images (patches/README.md). */
  readonly kubeletMountHostsFile: boolean
  readonly cgroupDriver: 'auto' | 'systemd' | 'cgroupfs'
  readonly snapshotter: 'overlayfs' | 'native'
  /** The daemon's own stop ends the pods too. */
  readonly stopPods: boolean
}

export const nodeSettings: Rows<NodeSettings> = {
  'node-name': {
    group,
    description: 'The name of the Node.',
    kind: nodeName,
    defaultText: 'the host name in lower case',
    roles: nodes,
    factOf: 'node',
  },
  'node-ip': {
    group,
    description: 'The address of the Node, or one of each family of the cluster.',
    kind: ofEachFamily(nodeAddress),
    defaultText:
      'the last one used while an interface has it, else the source address of the default route, else the first global one of an interface that is no bridge of containers; a changed one is followed',
    roles: nodes,
  },
  'node-label': {
    group,
    description: 'A label with which the Node is registered.',
    kind: label,
    separator: 'comma',
    default: [],
    roles: nodes,
    change: 'The kubelet sets labels when it registers the Node; later, use k8s kubectl label node.',
  },
  'node-taint': {
    group,
    description: 'A taint with which the Node is registered.',
    kind: taint,
    separator: 'comma',
    default: [],
    roles: clusterNodes,
    change: 'The kubelet sets taints when it registers the Node; later, use k8s kubectl taint node.',
  },
  'kubelet-root-dir': {
    group,
    description: 'The directory of the kubelet; CSI drivers expect the default.',
    // k8s.io/kubelet's device and pod resources sockets are the longest that the kubelet itself opens.
    kind: socketDirectory({ longestSocket: 'pod-resources/kubelet.sock', limit: socketPathLimitBytes }),
    default: '/var/lib/kubelet',
    roles: nodes,
    change: 'Pods that run keep their volumes in the former one: end them first, with k8s stop --pods.',
  },
  'kubelet-mount-hosts-file': {
    group,
    description: "Mount a generated /etc/hosts into containers; otherwise they keep their image's.",
    kind: boolean,
    default: true,
    roles: nodes,
  },
  'cgroup-driver': {
    group,
    description: 'Who manages the cgroups of pods; auto looks at the machine.',
    kind: choice('auto', 'systemd', 'cgroupfs'),
    default: 'auto',
    roles: nodes,
    change: 'Pods that run keep their cgroups: end them first, with k8s stop --pods.',
  },
  snapshotter: {
    group,
    description:
      'How containerd stacks the layers of images; native copies them, where overlayfs is missing.',
    kind: choice('overlayfs', 'native'),
    default: 'overlayfs',
    roles: nodes,
    change: 'Containers that run keep theirs: end the pods first, with k8s stop --pods.',
  },
  'stop-pods': {
    group,
    description: 'End the pods, too, when the daemon stops; otherwise they keep running.',
    kind: boolean,
    default: false,
    roles: nodes,
  },
}
