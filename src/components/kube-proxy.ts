import type { Config } from '../config/config.ts'
import { flags } from './arguments.ts'

export interface KubeProxyOptions {
  readonly config: Config
  /** The rendered KubeProxyConfiguration. */
  readonly configFile: string
}

export const kubeProxyHealthPort = 10256

/** The flags of kube-proxy (cmd/kube-proxy/app/options.go): all but the passed-through is in its file. */
export function kubeProxyArguments({ config, configFile }: KubeProxyOptions): string[] {
  return flags({ config: configFile, v: config.v > 0 ? config.v : undefined }, config.kubeProxyArg)
}
