import { clusterNodes, nodes, type RoleName, servers } from '../roles.ts'
import type { ListOption } from '../table/option.ts'
import { passThrough } from './pass-through.ts'
import type { RowFacts, Rows } from './rows.ts'

const group = 'Components'

export interface ComponentsSettings {
  /** flag=value without leading dashes, as are the five below; these win over the daemon's own flags. */
  readonly kubeApiserverArg: readonly string[]
  readonly kubeControllerManagerArg: readonly string[]
  readonly kubeSchedulerArg: readonly string[]
  readonly kubeletArg: readonly string[]
  readonly kubeProxyArg: readonly string[]
  readonly criDockerdArg: readonly string[]
  /** Of a server that has a member of its own. */
  readonly etcdArg?: readonly string[]
}

export const componentsSettings: Rows<ComponentsSettings> = {
  'kube-apiserver-arg': passThroughOption('kube-apiserver', servers),
  'kube-controller-manager-arg': passThroughOption('kube-controller-manager', servers),
  'kube-scheduler-arg': passThroughOption('kube-scheduler', servers),
  'kubelet-arg': passThroughOption('kubelet', nodes),
  'kube-proxy-arg': passThroughOption('kube-proxy', clusterNodes),
  'cri-dockerd-arg': passThroughOption('cri-dockerd', ['kubelet']),
  'etcd-arg': passThroughOption('etcd', ['ha']),
}

function passThroughOption(component: string, roles: readonly RoleName[]): ListOption<string> & RowFacts {
  return {
    group,
    description: `A flag for ${component}, which wins over the daemon's own.`,
    kind: passThrough(component),
    separator: 'space',
    default: [],
    roles,
  }
}
