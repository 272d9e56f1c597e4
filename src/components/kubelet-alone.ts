import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { privateDirectoryMode, writeRendered } from '../base/files.ts'
import { kubeletLayersDir, renderKubeletLayers } from '../node/render/kubelet-alone.ts'
import { flags } from './arguments.ts'
import type { KubeletContext } from './component.ts'
import { kubeletProcess, machineFlags, machineOptions, writeResolvConf } from './kubelet-process.ts'
import { probeGrpcSocket } from './probe.ts'
import type { ProcessRecipe } from './process-component.ts'

/** A kubelet without an API server: it runs the pods of a directory. */
export function kubeletAlone(context: KubeletContext): ProcessRecipe {
  const { config, onRecord, runtimeSocket } = context
  return kubeletProcess(context, {
    // A pod whose image comes a moment too late is tried again after ten seconds.
    needs: config.containerRuntimeEndpoint === undefined ? ['cri', 'archives'] : [],
    args: () => kubeletAloneArguments(context),
    onRecord,
    writeFiles: () => writeFiles(context),
    probe: (signal) => probeGrpcSocket({ path: runtimeSocket, signal }),
  })
}

async function writeFiles(context: KubeletContext): Promise<void> {
  const { config, paths, pki } = context
  const layersDir = kubeletLayersDir(paths.etcDir)
  const layers = renderKubeletLayers({
    ...machineOptions(context),
    clientCaFile: pki.clientCaFile,
    serving: pki.serving,
    profile: config.profile,
    runtimeSocket: context.runtimeSocket,
    staticPodDir: config.manifests,
    bindAddress: config.kubeletBindAddress,
    own: context.ownConfig,
  })
  await mkdir(layersDir, { recursive: true, mode: privateDirectoryMode })
  await mkdir(config.manifests, { recursive: true, mode: 0o755 })
  for (const [name, text] of Object.entries(layers)) await writeRendered(join(layersDir, name), text)
  await writeResolvConf(context)
}

/** The flags of kubelet (cmd/kubelet/app/options): what its configuration files have no field for. */
export function kubeletAloneArguments(
  context: Pick<KubeletContext, 'config' | 'addresses' | 'paths' | 'payload'>,
): string[] {
  const { config, paths, payload } = context
  return flags(
    {
      config: payload.standaloneKubelet,
      'config-dir': kubeletLayersDir(paths.etcDir),
      ...machineFlags(context),
    },
    config.kubeletArg,
  )
}
