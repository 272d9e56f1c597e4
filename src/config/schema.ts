import { type Config, disableable } from './config.ts'
import {
  address,
  boolean,
  choice,
  directory,
  dnsNameOrAddress,
  domain,
  file,
  integer,
  label,
  nodeAddress,
  nodeName,
  range,
  schedule,
  socketDirectory,
  taint,
} from './kinds.ts'
import { type Kebab, type Option, Refused, type ValueKind } from './option.ts'
import { passThrough } from './pass-through.ts'
import { socketPathLimitBytes } from './paths.ts'

/** Every setting there is. Flags, environment names, file keys, help and documentation come from here. */
export type Schema = {
  readonly [Name in keyof Required<Config> as Kebab<Name>]: Option<Required<Config>[Name]>
}

export type SettingName = keyof Schema

const server = 'Server'
const node = 'Node'
const network = 'Network'
const components = 'Components'
const snapshots = 'Snapshots'
const logging = 'Logging'

/** One server until several can share a datastore. */
const serverMode: ValueKind<'single' | 'ha'> = {
  placeholder: 'MODE',
  allowed: 'single',
  choices: ['single'],
  parse(text) {
    if (text === 'single') return text
    return text === 'ha'
      ? new Refused('clusters of several servers are not there yet; allowed is single')
      : new Refused()
  },
}

export const schema: Schema = {
  'server-mode': {
    group: server,
    description: 'How many servers share the cluster.',
    kind: serverMode,
    default: 'single',
  },
  'data-dir': {
    group: server,
    description: 'Where everything is kept that has to outlive a restart.',
    kind: directory,
    default: '/var/lib/k8s',
  },
  'bind-address': {
    group: server,
    description: 'The address on which the API server listens.',
    kind: address,
    defaultText: '0.0.0.0, or :: with an IPv6 service-cidr',
  },
  'https-listen-port': {
    group: server,
    description: 'The port on which the API server listens.',
    kind: integer({ from: 1, to: 65_535 }),
    default: 6443,
  },
  'advertise-address': {
    group: server,
    description: 'The address at which pods and other nodes reach the API server.',
    kind: nodeAddress,
    defaultText: 'the value of node-ip',
  },
  'tls-san': {
    group: server,
    description: "A further name or address in the API server's certificate.",
    kind: dnsNameOrAddress,
    separator: 'comma',
    default: [],
  },
  'write-kubeconfig': {
    group: server,
    description: 'A file that gets a copy of the admin kubeconfig, readable by its owner alone.',
    kind: file,
    defaultText: 'none',
  },
  disable: {
    group: server,
    description: 'A part of the cluster to leave out.',
    kind: choice(...disableable),
    separator: 'comma',
    default: [],
  },
  'stop-pods': {
    group: server,
    description: 'End the pods, too, when the daemon stops; otherwise they keep running.',
    kind: boolean,
    default: false,
  },
  'node-name': {
    group: node,
    description: 'The name of the Node.',
    kind: nodeName,
    defaultText: 'the host name in lower case',
  },
  'node-ip': {
    group: node,
    description: 'The address of the Node.',
    kind: nodeAddress,
    defaultText: 'the source address of the default route, else the first global address, else 127.0.0.1',
  },
  'node-label': {
    group: node,
    description: 'A label with which the Node is registered.',
    kind: label,
    separator: 'comma',
    default: [],
  },
  'node-taint': {
    group: node,
    description: 'A taint with which the Node is registered.',
    kind: taint,
    separator: 'comma',
    default: [],
  },
  'kubelet-root-dir': {
    group: node,
    description: 'The directory of the kubelet; CSI drivers expect the default.',
    // k8s.io/kubelet's device and pod resources sockets are the longest that the kubelet itself opens.
    kind: socketDirectory({ longestSocket: 'pod-resources/kubelet.sock', limit: socketPathLimitBytes }),
    default: '/var/lib/kubelet',
  },
  'kubelet-mount-hosts-file': {
    group: node,
    description: "Mount a generated /etc/hosts into containers; otherwise they keep their image's.",
    kind: boolean,
    default: true,
  },
  'cgroup-driver': {
    group: node,
    description: 'Who manages the cgroups of pods; auto looks at the machine.',
    kind: choice('auto', 'systemd', 'cgroupfs'),
    default: 'auto',
  },
  snapshotter: {
    group: node,
    description:
      'How containerd stacks the layers of images; native copies them, where overlayfs is missing.',
    kind: choice('overlayfs', 'native'),
    default: 'overlayfs',
  },
  'cluster-cidr': {
    group: network,
    description: 'The addresses of pods.',
    // Nodes get a /24 or a /64 each; kube-controller-manager's allocator holds 2^16 of the latter.
    kind: range({ 4: { from: 8, to: 24 }, 6: { from: 48, to: 64 } }),
    default: '10.244.0.0/16',
  },
  'service-cidr': {
    group: network,
    description: 'The addresses of services.',
    // The tenth address has to be in it; kube-apiserver takes no wider IPv6 range.
    kind: range({ 4: { from: 8, to: 28 }, 6: { from: 64, to: 124 } }),
    default: '10.96.0.0/12',
  },
  'cluster-dns': {
    group: network,
    description: 'The address of the DNS service.',
    kind: address,
    defaultText: 'the tenth address of service-cidr',
  },
  'cluster-domain': {
    group: network,
    description: 'The DNS domain of the cluster.',
    kind: domain,
    default: 'cluster.local',
  },
  'kube-proxy-mode': {
    group: network,
    description: 'What kube-proxy programs; auto takes nftables where the kernel has it.',
    kind: choice('auto', 'nftables', 'iptables'),
    default: 'auto',
  },
  'kube-apiserver-arg': passThroughOption('kube-apiserver'),
  'kube-controller-manager-arg': passThroughOption('kube-controller-manager'),
  'kube-scheduler-arg': passThroughOption('kube-scheduler'),
  'kubelet-arg': passThroughOption('kubelet'),
  'kube-proxy-arg': passThroughOption('kube-proxy'),
  'snapshot-schedule-cron': {
    group: snapshots,
    description: "When the daemon takes snapshots, in the machine's time.",
    kind: schedule,
    default: '0 */12 * * *',
  },
  'snapshot-retention': {
    group: snapshots,
    description: 'How many snapshots of a name are kept.',
    kind: integer({ from: 1, to: 100_000 }),
    default: 5,
  },
  'snapshot-dir': {
    group: snapshots,
    description: 'The directory of the snapshots.',
    kind: directory,
    defaultText: 'snapshots in the data directory',
  },
  'snapshot-secret-file': {
    group: snapshots,
    description:
      'Seal snapshots with the secret in this file; without one their keys can be read by whoever has them.',
    kind: file,
    defaultText: 'none',
  },
  v: {
    group: logging,
    description: "The verbosity of the components' logs.",
    kind: integer({ from: 0, to: 10 }),
    default: 0,
  },
  'log-format': {
    group: logging,
    description: 'The form of log lines; auto is text on a terminal, else json.',
    kind: choice('auto', 'json', 'text'),
    default: 'auto',
  },
}

function passThroughOption(component: string): Option<readonly string[]> {
  return {
    group: components,
    description: `A flag for ${component}, which wins over the daemon's own.`,
    kind: passThrough(component),
    separator: 'space',
    default: [],
  }
}
