import { Refused, type ValueKind } from '../table/option.ts'

/**
 * Flags that no pass-through may set, since the daemon itself relies on their value: with what to
 * use instead, or why there is nothing else. Every other flag that a user passes wins.
 */
const ownFlags: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'kube-apiserver': {
    'advertise-address': 'use --advertise-address',
    'bind-address': 'use --bind-address',
    'client-ca-file': "the daemon issues the cluster's certificates",
    'etcd-servers': 'the daemon stands in front of its storage; use --etcd-endpoints, with --server-mode=ha',
    'etcd-prefix': 'use --etcd-prefix',
    'secure-port': 'use --https-listen-port',
    'service-cluster-ip-range': 'use --service-cidr',
    'tls-cert-file': 'the daemon issues it; use --tls-san for more names',
    'tls-private-key-file': 'the daemon issues it; use --tls-san for more names',
  },
  'kube-controller-manager': {
    'cluster-cidr': 'use --cluster-cidr',
    kubeconfig: 'the daemon writes it',
    'root-ca-file': "the daemon issues the cluster's certificates",
    'secure-port': 'the daemon asks it for its health there',
    'service-account-private-key-file': "the daemon issues the cluster's keys",
    'service-cluster-ip-range': 'use --service-cidr',
  },
  'kube-scheduler': {
    kubeconfig: 'the daemon writes it',
    'secure-port': 'the daemon asks it for its health there',
  },
  kubelet: {
    'cgroup-driver': 'use --cgroup-driver',
    'cluster-dns': 'use --cluster-dns',
    'cluster-domain': 'use --cluster-domain',
    config: 'the daemon writes it; pass the flag you want to change',
    'container-runtime-endpoint': 'the daemon runs containerd',
    'healthz-port': 'the daemon asks it for its health there',
    'hostname-override': 'use --node-name',
    kubeconfig: 'the daemon writes it',
    'node-ip': 'use --node-ip',
    'node-labels': 'use --node-label',
    'register-with-taints': 'use --node-taint',
    'root-dir': 'use --kubelet-root-dir',
  },
  'cri-dockerd': {
    'container-runtime-endpoint': 'the daemon asks it for its pods there',
    'cri-dockerd-root-directory': 'it is in that of the daemon',
    'docker-endpoint': 'use --docker-endpoint',
  },
  etcd: {
    'data-dir': 'it is in that of the daemon',
    'initial-cluster': 'the daemon knows the members',
    'initial-cluster-state': 'the daemon knows the members',
    'listen-client-urls': 'the daemon stands in front of it',
    'listen-metrics-urls': 'the daemon asks it for its health there',
    'listen-peer-urls': 'use --node-ip',
    name: 'use --node-name',
    'quota-backend-bytes': 'use --quota-backend-bytes',
    'heartbeat-interval': 'use --etcd-heartbeat-interval',
    'election-timeout': 'use --etcd-election-timeout',
    'trusted-ca-file': 'the daemon issues its certificates',
    'peer-trusted-ca-file': 'the daemon issues its certificates',
    'client-cert-auth': 'whoever can write etcd has the cluster',
    'peer-client-cert-auth': 'whoever is a peer has the cluster',
  },
  'kube-proxy': {
    'cluster-cidr': 'use --cluster-cidr',
    config: 'with it kube-proxy takes no other flag; pass the flag you want to change',
    'healthz-bind-address': 'the daemon asks it for its health there',
    'hostname-override': 'use --node-name',
    kubeconfig: 'the daemon writes it',
    'proxy-mode': 'use --kube-proxy-mode',
  },
}

/** `flag=value` for the flags of `component`, without leading dashes. */
export function passThrough(component: string): ValueKind<string> {
  return {
    placeholder: 'FLAG=VALUE',
    allowed: `a flag of ${component} with its value, without leading dashes, such as v=4`,
    // A value may be a secret; what is wrong is never the value.
    show: (text) => text.split(/[=\s]/, 1)[0] ?? '',
    parse(text) {
      if (text.startsWith('-')) return new Refused('the flag goes without leading dashes')
      const [, flag] = /^([a-z][a-z0-9-]*)=/s.exec(text) ?? []
      if (flag === undefined) return new Refused()
      const instead = ownFlags[component]?.[flag]
      return instead === undefined ? text : new Refused(`${flag} belongs to the daemon: ${instead}`)
    },
  }
}

/** Flags of the kubelet that say who may ask it: in its configuration they are looked at (own-kubelet-config.ts). */
const accessFlags: Readonly<Record<string, string>> = {
  address: 'use --kubelet-bind-address',
  'anonymous-auth': 'use --profile, or authentication in --kubelet-config',
  'authentication-token-webhook': 'there is no API server to ask',
  'authorization-mode': 'use authorization in --kubelet-config',
  'client-ca-file': 'the daemon has an authority of its own for it',
  'config-dir': 'the daemon writes it; use --kubelet-config',
  'enable-server': 'the daemon asks the kubelet for its pods',
  'pod-manifest-path': 'use --manifests',
  port: 'the daemon asks the kubelet for its pods there',
  'read-only-port': 'use readOnlyPort in --kubelet-config',
  'tls-cert-file': 'the daemon issues it',
  'tls-private-key-file': 'the daemon issues it',
}

/** Why a kubelet alone may not have one of these arguments; undefined: it may. */
export function refusedAccessFlag(kubeletArg: readonly string[]): string | undefined {
  const flags = kubeletArg.map((argument) => argument.slice(0, argument.indexOf('=')))
  const flag = flags.find((name) => Object.hasOwn(accessFlags, name))
  return flag && `${flag} belongs to the daemon: ${accessFlags[flag]}`
}
