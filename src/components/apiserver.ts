import { join } from 'node:path'
import { writeRendered } from '../base/files.ts'
import type { Paths } from '../config/paths.ts'
import { frontProxyUser } from '../pki/leaves.ts'
import { flags } from './arguments.ts'
import type { ComponentContext } from './component.ts'
import { apiserverUrl, probeWithAuthority } from './probe.ts'
import type { ProcessRecipe } from './process-component.ts'

/** Groups of the API that pods serve are asked for up to 5 s before it is ready, when no pod can be there yet. */
const readiness = '/readyz?exclude=poststarthook/apiservice-discovery-controller'

export function apiserver(context: ComponentContext): ProcessRecipe {
  const { config, paths, pki, credentials } = context
  return {
    name: 'kube-apiserver',
    needs: ['storage'],
    provides: ['api'],
    policy: 'fatal',
    args: () => apiserverArguments(context),
    logFormat: 'klog',
    readyTimeoutMs: context.storageMayBeAway ? Number.POSITIVE_INFINITY : 120_000,
    // It finishes requests, and sheds watches, before it goes.
    stopTimeoutMs: 20_000,
    ports: [config.httpsListenPort],
    prepare: async () => {
      await credentials
      await writeRendered(authenticationConfigFile(paths), authenticationConfig())
    },
    // A storage that is away is no reason to start it again.
    alive: (signal) => probeWithAuthority({ pki, url: `${apiserverUrl(config)}/livez?exclude=etcd`, signal }),
    hangLimitMs: 120_000,
    probe: (signal) => probeWithAuthority({ pki, url: `${apiserverUrl(config)}${readiness}`, signal }),
  }
}

type ApiserverOptions = Pick<ComponentContext, 'config' | 'addresses' | 'paths' | 'pki' | 'storageFlags'>

/**
 * The flags of kube-apiserver (cmd/kube-apiserver/app/options). Node and RBAC authorization,
 * NodeRestriction, Secrets encrypted in the datastore; who may come without a name is told by the
 * authentication configuration.
 */
export function apiserverArguments({
  config,
  addresses,
  paths,
  pki,
  storageFlags,
}: ApiserverOptions): string[] {
  return flags(
    {
      'advertise-address': addresses().advertiseAddress,
      'allow-privileged': true,
      'authentication-config': authenticationConfigFile(paths),
      'authorization-mode': 'Node,RBAC',
      'bind-address': config.bindAddress,
      'client-ca-file': pki.authorities.client.certFile,
      'enable-admission-plugins': 'NodeRestriction',
      // To pods that serve a group of the API themselves: the address of a Service leads nowhere on a machine without a default route.
      'enable-aggregator-routing': true,
      // Secrets of the type bootstrap.kubernetes.io/token let machines ask to join.
      'enable-bootstrap-token-auth': true,
      'encryption-provider-config': pki.encryptionConfigFile,
      // k8s secrets-encryption rotate
      'encryption-provider-config-automatic-reload': true,
      ...storageFlags,
      'kubelet-certificate-authority': pki.authorities.server.certFile,
      'kubelet-client-certificate': pki.leaves['apiserver-kubelet-client'].certFile,
      'kubelet-client-key': pki.leaves['apiserver-kubelet-client'].keyFile,
      'kubelet-preferred-address-types': 'InternalIP,ExternalIP,Hostname',
      profiling: false,
      'proxy-client-cert-file': pki.leaves['front-proxy-client'].certFile,
      'proxy-client-key-file': pki.leaves['front-proxy-client'].keyFile,
      'requestheader-allowed-names': frontProxyUser,
      'requestheader-client-ca-file': pki.authorities.requestHeader.certFile,
      'requestheader-extra-headers-prefix': 'X-Remote-Extra-',
      'requestheader-group-headers': 'X-Remote-Group',
      'requestheader-username-headers': 'X-Remote-User',
      'secure-port': config.httpsListenPort,
      'service-account-issuer': `https://kubernetes.default.svc.${config.clusterDomain}`,
      'service-account-key-file': pki.serviceAccountPublicKeyFile,
      'service-account-signing-key-file': pki.serviceAccountKeyFile,
      'service-cluster-ip-range': config.serviceCidr,
      // Without it a stop waits for watches that nobody ends, until it is killed.
      'shutdown-watch-termination-grace-period': '2s',
      'tls-cert-file': pki.leaves.apiserver.certFile,
      'tls-private-key-file': pki.leaves.apiserver.keyFile,
      v: config.v > 0 ? config.v : undefined,
    },
    config.kubeApiserverArg,
  )
}

function authenticationConfigFile(paths: Paths): string {
  return join(paths.etcDir, 'apiserver-authentication.yaml')
}

/** Authorization lets it be read by all as long as a join token is there (src/cluster/tasks/joiners.ts). */
const clusterInfo = '/api/v1/namespaces/kube-public/configmaps/cluster-info'

/**
 * KEP-4633: without credentials one may ask for health and, to join, for what a token tells the truth of; for nothing
 * else. JSON is YAML.
 */
export function authenticationConfig(): string {
  const conditions = ['/healthz', '/livez', '/readyz', clusterInfo].map((path) => ({ path }))
  return `${JSON.stringify(
    {
      apiVersion: 'apiserver.config.k8s.io/v1',
      kind: 'AuthenticationConfiguration',
      anonymous: { enabled: true, conditions },
    },
    undefined,
    2,
  )}\n`
}
