import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { privateDirectoryMode, writeRendered } from '../base/files.ts'
import type { Paths } from '../config/paths.ts'
import { renderKubeletConfig } from '../node/render/kubelet-config.ts'
import { flags } from './arguments.ts'
import type { NodeContext } from './component.ts'
import { kubeletProcess, machineFlags, machineOptions, writeResolvConf } from './kubelet-process.ts'
import { probeNode, readLease, reportedAt, Reports } from './node.ts'
import type { ProcessRecipe } from './process-component.ts'

export function kubelet(context: NodeContext): ProcessRecipe {
  const reports = new Reports()
  return kubeletProcess(context, {
    needs: ['api', 'cri'],
    args: () => kubeletArguments(context),
    writeFiles: () => writeFiles(context),
    probe: async (signal) => {
      const node = await probeNode(context, signal)
      await reports.requireNew(reportedAt(node), { lease: () => readLease(context, signal) })
    },
  })
}

function configFile({ etcDir }: Paths): string {
  return join(etcDir, 'kubelet.yaml')
}

async function writeFiles(context: NodeContext): Promise<void> {
  const { config, paths, access, choices } = context
  const staticPodDir = join(paths.dataDir, 'manifests')
  const text = renderKubeletConfig({
    ...machineOptions(context),
    proxyMode: choices.proxyMode,
    containerdSocket: paths.containerdSocket,
    clientCaFile: access.kubelet.clientCaFile,
    serving: access.kubelet.serving,
    clusterDns: config.clusterDns,
    clusterDomain: config.clusterDomain,
    staticPodDir,
    nodeTaint: config.nodeTaint,
  })
  await mkdir(staticPodDir, { recursive: true, mode: privateDirectoryMode })
  await writeRendered(configFile(paths), text)
  await writeResolvConf(context)
}

/** The flags of kubelet (cmd/kubelet/app/options): what its configuration file has no field for. */
export function kubeletArguments({
  access: { kubelet: credentials },
  ...context
}: Pick<NodeContext, 'config' | 'addresses' | 'paths' | 'access'>): string[] {
  return flags(
    {
      'cert-dir': credentials.requestedDir,
      config: configFile(context.paths),
      kubeconfig: credentials.kubeconfig,
      ...machineFlags(context),
    },
    context.config.kubeletArg,
  )
}
