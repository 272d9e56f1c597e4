import type { KubeletConfig } from '../config/config.ts'
import { loadAnyConfig } from '../config/load.ts'
import { readOwnConfig } from '../config/own-kubelet-config.ts'
import { settingsOf } from '../config/schema.ts'
import { type Command, configOption, type Invocation, requireRoot, sourcesOf } from './command.ts'
import { runMachine } from './run-options.ts'

export const kubelet: Command = {
  name: 'kubelet',
  description:
    'Run a kubelet without a cluster, in the foreground: it keeps the pods of a directory running.',
  details: `Each file of the directory is a Pod, as in the API; it may refer to no other object (ConfigMaps, Secrets, service accounts).
k8s pod ls, logs and exec show what runs.`,
  examples: [
    { command: 'k8s kubelet', description: 'Run the pods of /etc/kubernetes/manifests' },
    {
      command:
        'k8s kubelet --manifests=/srv/pods --container-runtime-endpoint=/run/containerd/containerd.sock',
      description: "Run those of another directory in the machine's own containerd",
    },
  ],
  options: { ...configOption, ...settingsOf('kubelet') },
  handler,
}

async function handler(invocation: Invocation): Promise<number> {
  const config = await loadAnyConfig({ ...sourcesOf(invocation), role: 'kubelet' })
  if (config.role !== 'kubelet') throw new Error('bug: the role is not what was asked for')
  return runKubelet(config, invocation)
}

/** Runs it until a signal ends it; returns the exit code. */
export async function runKubelet(config: KubeletConfig, { environment }: Invocation): Promise<number> {
  await readOwnConfig(config)
  requireRoot('run a kubelet', 'use sudo, or start it with systemctl start k8s')
  return runMachine(config, environment)
}
