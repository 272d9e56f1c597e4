import { readFile, writeFile } from 'node:fs/promises'
import { isIPv6 } from 'node:net'
import type { TlsIdentity } from '../base/https.ts'
import type { Logger } from '../base/logger.ts'
import {
  apiserverArguments,
  authenticationConfig,
  authenticationConfigFile,
} from '../components/apiserver.ts'
import type { Component, ComponentName } from '../components/component.ts'
import { controllerManagerArguments, controllerManagerPort } from '../components/controller-manager.ts'
import { kubeletArguments, kubeletHealthPort, kubeletPort, probeNode } from '../components/kubelet.ts'
import { kubeProxyArguments, kubeProxyHealthPort } from '../components/kube-proxy.ts'
import { probeHttp, probeSocket } from '../components/probe.ts'
import { processComponent, type ProcessComponentOptions } from '../components/process-component.ts'
import { schedulerArguments, schedulerPort } from '../components/scheduler.ts'
import { storage } from '../components/storage.ts'
import type { Config } from '../config/config.ts'
import type { Paths } from '../config/paths.ts'
import type { Payload } from '../payload/payload.ts'
import { kubeconfigPath } from '../pki/kubeconfig.ts'
import type { PkiFiles } from '../pki/pki.ts'
import { hostPath } from './host-path.ts'
import type { NodeFiles } from './node-files.ts'

export interface PlanOptions {
  readonly config: Config
  readonly paths: Paths
  readonly payload: Payload
  readonly pki: PkiFiles
  readonly nodeFiles: NodeFiles
  /** Settled when the certificates and kubeconfigs are there; every client of the API server waits for it. */
  readonly credentials: Promise<unknown>
  readonly kubeletIdentity: () => Promise<TlsIdentity>
  readonly log: Logger
  readonly onDatastoreFailure: (error: Error) => void
}

/**
 * How much a component's heap may grow, in percent, until it is collected again; Go's default is 100. Half of it
 * saves a tenth of the cluster's memory, and costs an idle one no measurable time.
 */
const garbagePercent = '50'

type Recipe = Omit<ProcessComponentOptions, 'spec' | 'log'> & {
  readonly name: ComponentName
  readonly program?: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly logFormat?: 'klog' | 'logfmt'
  readonly stopTimeoutMs: number
  readonly ports?: readonly number[]
}

/**
 * What the cluster consists of, in the order of its start. Pure: nothing is written or started before
 * the lifecycle of the components does it.
 */
export function planCluster(options: PlanOptions): Component[] {
  const { config, paths, payload, log } = options
  const fromRecipe = ({
    name,
    program,
    args,
    env,
    logFormat,
    stopTimeoutMs,
    ports,
    ...rest
  }: Recipe): Component =>
    processComponent({
      ...rest,
      log,
      spec: {
        name,
        command: payload.bin(program ?? name),
        args,
        env: { PATH: `${payload.binDir}:${hostPath}`, GOGC: garbagePercent, ...env },
        logFormat: logFormat ?? 'klog',
        stopTimeoutMs,
        recordDir: paths.processRecordsDir,
        ...(ports && { ports }),
      },
    })
  const datastore = storage({
    database: paths.database,
    socket: paths.datastoreSocket,
    workerUrl: payload.datastoreWorker,
    nativeBinding: payload.sqliteAddon,
    etcdFileProgram: payload.bin('etcd-file'),
    log,
    onFailure: options.onDatastoreFailure,
  })
  const recipes = [
    containerd(options),
    apiserver(options),
    controllerManager(options),
    scheduler(options),
    kubelet(options),
    ...(config.disable.includes('kube-proxy') ? [] : [kubeProxy(options)]),
  ]
  return [datastore, ...recipes.map(fromRecipe)]
}

function containerd({ paths, nodeFiles }: PlanOptions): Recipe {
  return {
    name: 'containerd',
    needs: [],
    args: [`--config=${nodeFiles.containerdConfig}`],
    // Pulling images is the one thing that a proxy of the machine's environment is for.
    env: proxyEnvironment(process.env),
    logFormat: 'logfmt',
    readyTimeoutMs: 60_000,
    stopTimeoutMs: 10_000,
    prepare: () => nodeFiles.write(),
    probe: () => probeSocket(paths.containerdSocket),
  }
}

function apiserver(options: PlanOptions): Recipe {
  const { config, paths, pki, credentials } = options
  return {
    name: 'kube-apiserver',
    needs: ['datastore'],
    args: apiserverArguments({ config, paths, pki }),
    readyTimeoutMs: 120_000,
    // It finishes requests, and sheds watches, before it goes.
    stopTimeoutMs: 20_000,
    ports: [config.httpsListenPort],
    prepare: async () => {
      await credentials
      await writeFile(authenticationConfigFile(paths), authenticationConfig(), { mode: 0o600 })
    },
    probe: (signal) => probeWithAuthority(options, `${serverUrl(config)}/readyz`, signal),
  }
}

function controllerManager(options: PlanOptions): Recipe {
  const { config, paths, pki, credentials } = options
  return {
    name: 'kube-controller-manager',
    needs: ['kube-apiserver'],
    args: controllerManagerArguments({
      config,
      pki,
      kubeconfig: kubeconfigPath(paths.kubeconfigDir, 'kube-controller-manager'),
    }),
    readyTimeoutMs: 60_000,
    stopTimeoutMs: 10_000,
    ports: [controllerManagerPort],
    prepare: async () => void (await credentials),
    probe: (signal) =>
      probeWithAuthority(options, `https://127.0.0.1:${controllerManagerPort}/healthz`, signal),
  }
}

function scheduler(options: PlanOptions): Recipe {
  const { config, paths, pki, credentials } = options
  return {
    name: 'kube-scheduler',
    needs: ['kube-apiserver'],
    args: schedulerArguments({
      config,
      pki,
      kubeconfig: kubeconfigPath(paths.kubeconfigDir, 'kube-scheduler'),
    }),
    readyTimeoutMs: 60_000,
    stopTimeoutMs: 10_000,
    ports: [schedulerPort],
    prepare: async () => void (await credentials),
    probe: (signal) => probeWithAuthority(options, `https://127.0.0.1:${schedulerPort}/readyz`, signal),
  }
}

function kubelet({ config, paths, nodeFiles, credentials, kubeletIdentity }: PlanOptions): Recipe {
  return {
    name: 'kubelet',
    needs: ['kube-apiserver', 'containerd'],
    args: kubeletArguments({
      config,
      configFile: nodeFiles.kubeletConfig,
      kubeconfig: kubeconfigPath(paths.kubeconfigDir, 'kubelet'),
    }),
    env: config.kubeletMountHostsFile ? {} : { K8S_KUBELET_MOUNT_HOSTS_FILE: 'false' },
    readyTimeoutMs: 120_000,
    stopTimeoutMs: 10_000,
    ports: [kubeletPort, kubeletHealthPort],
    prepare: async () => void (await credentials),
    probe: async (signal) => {
      await probeHttp({ url: `http://127.0.0.1:${kubeletHealthPort}/healthz`, signal })
      await probeNode({
        server: serverUrl(config),
        nodeName: config.nodeName,
        tls: await kubeletIdentity(),
        signal,
      })
    },
  }
}

function kubeProxy({ config, paths, nodeFiles, credentials }: PlanOptions): Recipe {
  return {
    name: 'kube-proxy',
    // It looks its Node up, and would wait for it in steps of its own.
    needs: ['kube-apiserver', 'kubelet'],
    args: kubeProxyArguments({
      ...nodeFiles,
      config,
      mode: nodeFiles.proxyMode,
      kubeconfig: kubeconfigPath(paths.kubeconfigDir, 'kube-proxy'),
    }),
    readyTimeoutMs: 60_000,
    stopTimeoutMs: 10_000,
    ports: [kubeProxyHealthPort],
    prepare: async () => void (await credentials),
    probe: async (signal) =>
      void (await probeHttp({ url: `http://127.0.0.1:${kubeProxyHealthPort}/healthz`, signal })),
  }
}

const wildcards = ['0.0.0.0', '::']

/** The address that the daemon and the components on this machine use. */
export function serverUrl({
  bindAddress,
  httpsListenPort,
}: Pick<Config, 'bindAddress' | 'httpsListenPort'>): string {
  const host = wildcards.includes(bindAddress) ? '127.0.0.1' : bindAddress
  return `https://${isIPv6(host) ? `[${host}]` : host}:${httpsListenPort}`
}

/** Health is open to all; the probe checks who answers, and shows nothing of its own. */
async function probeWithAuthority({ pki }: PlanOptions, url: string, signal: AbortSignal): Promise<void> {
  const ca = await readFile(pki.authorities.server.certFile, 'utf8')
  await probeHttp({ url, tls: { ca }, signal })
}

const proxyVariables = ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY']

function proxyEnvironment(environment: NodeJS.ProcessEnv): Record<string, string> {
  const names = proxyVariables.flatMap((name) => [name, name.toLowerCase()])
  return Object.fromEntries(names.flatMap((name) => (environment[name] ? [[name, environment[name]]] : [])))
}
