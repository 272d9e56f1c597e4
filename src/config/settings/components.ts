import type { ListOption } from '../table/option.ts'
import type { Rows } from './rows.ts'
import { passThrough } from './pass-through.ts'

const group = 'Components'

export interface ComponentsSettings {
  /** flag=value without leading dashes, as are the four below; these win over the daemon's own flags. */
  readonly kubeApiserverArg: readonly string[]
  readonly kubeControllerManagerArg: readonly string[]
  readonly kubeSchedulerArg: readonly string[]
  readonly kubeletArg: readonly string[]
  readonly kubeProxyArg: readonly string[]
}

export const componentsSettings: Rows<ComponentsSettings> = {
  'kube-apiserver-arg': passThroughOption('kube-apiserver'),
  'kube-controller-manager-arg': passThroughOption('kube-controller-manager'),
  'kube-scheduler-arg': passThroughOption('kube-scheduler'),
  'kubelet-arg': passThroughOption('kubelet'),
  'kube-proxy-arg': passThroughOption('kube-proxy'),
}

function passThroughOption(component: string): ListOption<string> {
  return {
    group,
    description: `A flag for ${component}, which wins over the daemon's own.`,
    kind: passThrough(component),
    separator: 'space',
    default: [],
  }
}
