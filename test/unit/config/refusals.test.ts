import { describe, expect, test } from 'vitest'
import { type Given, refusal, testHost } from './given.ts'

type Case = readonly [what: string, given: Given, message: string]

const node = 'a DNS name of at most 63 characters: lower-case letters, digits, "-" and "."'
const nodeAddress =
  'one IPv4 or IPv6 address that other nodes could reach: neither loopback, link-local, multicast nor unspecified'

/** With a cluster that was created so. */
const hostWith = (cluster: Record<string, string>) => ({ ...testHost, facts: () => ({ cluster, node: {} }) })

const cases: Readonly<Record<string, readonly Case[]>> = {
  'unknown names': [
    [
      'in the file, with its line',
      { file: '# mine\nv: 1\nnodeName: x\n' },
      'cannot use nodeName in DIR/config.yaml:3: there is no such setting; did you mean node-name?',
    ],
    [
      'that every object has',
      { file: 'constructor: x\n' },
      'cannot use constructor in DIR/config.yaml:1: there is no such setting; k8s server --help lists them',
    ],
    [
      'of the config file in itself',
      { file: 'config: /etc/other.yaml\n' },
      'cannot use config in DIR/config.yaml:1: there is no such setting; k8s server --help lists them',
    ],
  ],
  'files that are no configuration': [
    [
      'invalid YAML',
      { file: 'v: 1\nnode-name: "x\n' },
      'cannot use DIR/config.yaml:3: it is not valid YAML: Missing closing "quote',
    ],
    [
      'a key twice',
      { file: 'v: 1\nv: 2\n' },
      'cannot use DIR/config.yaml:2: it is not valid YAML: Map keys must be unique',
    ],
    [
      'a list',
      { file: '- v\n' },
      'cannot use DIR/config.yaml: allowed is a map of settings, such as "node-name: NAME"',
    ],
    [
      'a nested map',
      { file: 'kubelet-arg:\n  max-pods: 5\n' },
      'cannot use kubelet-arg in DIR/config.yaml:1: allowed is one value or a list of them, not a map or a nested list',
    ],
    [
      'a list for one value',
      { file: 'v: [1, 2]\n' },
      'cannot use v in DIR/config.yaml:1: it is a list; allowed is a whole number from 0 to 10',
    ],
    [
      'no value',
      { file: 'cluster-domain:\n' },
      'cannot use cluster-domain in DIR/config.yaml:1: it has no value; allowed is a DNS name in lower case, such as cluster.local',
    ],
    [
      'a directory',
      { flags: ['--config=/etc'] },
      'cannot read the configuration file /etc: it is no regular file',
    ],
  ],
  'values, with the source as it was written': [
    ['a flag', { flags: ['--v=11'] }, 'cannot use --v=11: allowed is a whole number from 0 to 10'],
    [
      'a variable',
      { environment: { K8S_STOP_PODS: 'yes' } },
      'cannot use K8S_STOP_PODS=yes in the environment: allowed is true or false',
    ],
    [
      'a key',
      { file: 'v: 1\ncgroup-driver: cgroups\n' },
      'cannot use cgroup-driver: cgroups in DIR/config.yaml:2: allowed is auto, systemd or cgroupfs',
    ],
    [
      'a text with spaces',
      { flags: ['--node-name=my node\n'] },
      `cannot use --node-name="my node\\n": allowed is ${node}`,
    ],
    [
      'an empty flag',
      { flags: ['--node-name='] },
      `cannot use --node-name: it has no value; allowed is ${node}`,
    ],
    [
      'a long name',
      { flags: [`--node-name=${'a'.repeat(64)}`] },
      `cannot use --node-name=${'a'.repeat(64)}: allowed is ${node}`,
    ],
    ['an upper-case name', { flags: ['--node-name=One'] }, `cannot use --node-name=One: allowed is ${node}`],
    ['no mode', { flags: ['--server-mode=both'] }, 'cannot use --server-mode=both: allowed is single or ha'],
    [
      'a setting of the other mode',
      { flags: ['--etcd-prefix=/one'] },
      'cannot use --etcd-prefix: a server has no such setting; leave it away, or choose server-mode ha, which has it',
    ],
    [
      'a setting of the one mode in the other',
      { flags: ['--cluster-init=true'] },
      'cannot use --cluster-init: a server has no such setting; leave it away, or choose server-mode ha, which has it',
    ],
    [
      'the size of an etcd that others run',
      { flags: ['--server-mode=ha', '--quota-backend-bytes=1'] },
      'cannot use --quota-backend-bytes=1: the etcd is one that others run, where this is set; with cluster-init the servers have one of their own',
    ],
    [
      'an etcd of others beside one of their own',
      { flags: ['--server-mode=ha', '--cluster-init=true', '--etcd-endpoints=https://a:1'] },
      'cannot use --etcd-endpoints=https://a:1: the servers have an etcd of their own (--cluster-init=true)',
    ],
    [
      'an etcd of others for a cluster whose servers have one of their own',
      {
        flags: ['--etcd-endpoints=https://a:1'],
        host: hostWith({ 'server-mode': 'ha', 'cluster-init': 'true' }),
      },
      'cannot use --etcd-endpoints=https://a:1: the servers have an etcd of their own (cluster-init true, fixed in /var/lib/k8s/cluster.json)',
    ],
    [
      'an etcd of their own for a cluster in one that others run',
      {
        flags: ['--server-mode=ha', '--cluster-init=true'],
        host: hostWith({ 'server-mode': 'ha', 'cluster-init': 'false' }),
      },
      'cannot use --cluster-init=true: the cluster was created with cluster-init false (/var/lib/k8s/cluster.json), which cannot change; leave the setting away, or create another cluster with another --data-dir, or after k8s reset',
    ],
    [
      'an election that begins before a heartbeat may come',
      { flags: ['--server-mode=ha', '--cluster-init=true', '--etcd-heartbeat-interval=300ms'] },
      'cannot use the default etcd-election-timeout 1000: it has to be 5 times --etcd-heartbeat-interval=300, or more',
    ],
    [
      'an election that etcd would not wait for',
      { flags: ['--server-mode=ha', '--cluster-init=true', '--etcd-election-timeout=1m'] },
      'cannot use --etcd-election-timeout=60000: etcd takes no more than 50s',
    ],
    [
      'no endpoint of etcd',
      { flags: ['--server-mode=ha', '--etcd-endpoints=10.0.0.1:2379'] },
      'cannot use --etcd-endpoints=10.0.0.1:2379: allowed is http://HOST:PORT or https://HOST:PORT, with a host that clients can go to and nothing after it',
    ],
    [
      'endpoints of etcd with TLS and without',
      { flags: ['--server-mode=ha', '--etcd-endpoints=https://a:1,http://b:2'] },
      'cannot use --etcd-endpoints=https://a:1,http://b:2: all have to be https:// or none, and http://b:2 is not',
    ],
    [
      'an endpoint of etcd that is named twice',
      { flags: ['--server-mode=ha', '--etcd-endpoints=http://a:1,http://a:1'] },
      'cannot use --etcd-endpoints=http://a:1,http://a:1: http://a:1 is there more than once',
    ],
    [
      'authorities of an etcd without TLS',
      { flags: ['--server-mode=ha', '--etcd-ca-file=/ca.crt'] },
      'cannot use --etcd-ca-file=/ca.crt: there is no TLS with http://127.0.0.1:2379; say https://, or leave the files away',
    ],
    [
      'a certificate for etcd without its key',
      { flags: ['--server-mode=ha', '--etcd-endpoints=https://a:1', '--etcd-cert-file=/a.crt'] },
      'cannot use --etcd-cert-file=/a.crt: it needs etcd-key-file beside it',
    ],
    [
      'a key for etcd without its certificate',
      { flags: ['--server-mode=ha', '--etcd-endpoints=https://a:1', '--etcd-key-file=/a.key'] },
      'cannot use --etcd-key-file=/a.key: it needs etcd-cert-file beside it',
    ],
    [
      'a prefix that ends with a slash',
      { flags: ['--server-mode=ha', '--etcd-prefix=/one/'] },
      'cannot use --etcd-prefix=/one/: allowed is a path such as /registry, of letters, digits, "-", "_", "." and "/", with no slash at its end',
    ],
    [
      'no address',
      { flags: ['--node-ip=10.0.0.300'] },
      'cannot use --node-ip=10.0.0.300: allowed is one IPv4 or IPv6 address',
    ],
    [
      'two addresses of one family',
      { flags: ['--node-ip=10.0.0.1,10.0.0.2'] },
      'cannot use --node-ip=10.0.0.1,10.0.0.2: both are IPv4; allowed is one, or one of each family',
    ],
    [
      'an address that only this machine has beside another one',
      { flags: ['--node-ip=10.0.0.1,::1'] },
      `cannot use --node-ip=10.0.0.1,::1: allowed is ${nodeAddress}; or one of each family, with a comma between them`,
    ],
    [
      'no address beside another one',
      { flags: ['--node-ip=10.0.0.1,'] },
      'cannot use --node-ip=10.0.0.1,: of "", allowed is one IPv4 or IPv6 address',
    ],
    [
      'an address that only this machine has',
      { flags: ['--node-ip=127.0.0.1'] },
      `cannot use --node-ip=127.0.0.1: allowed is ${nodeAddress}; or one of each family, with a comma between them`,
    ],
    [
      'a port',
      { flags: ['--https-listen-port=0'] },
      'cannot use --https-listen-port=0: allowed is a whole number from 1 to 65535',
    ],
    [
      'a port with a sign',
      { flags: ['--https-listen-port=+80'] },
      'cannot use --https-listen-port=+80: allowed is a whole number from 1 to 65535',
    ],
    [
      'a range with host bits',
      { flags: ['--cluster-cidr=10.244.1.0/16'] },
      'cannot use --cluster-cidr=10.244.1.0/16: the range is 10.244.0.0/16',
    ],
    [
      'a range without room for nodes',
      { flags: ['--cluster-cidr=10.244.0.0/25'] },
      'cannot use --cluster-cidr=10.244.0.0/25: allowed is one range, IPv4 with a prefix of 8 to 24 or IPv6 with 48 to 64; or one of each family, with a comma between them',
    ],
    [
      'a range with host bits beside another one',
      { flags: ['--cluster-cidr=10.244.0.0/16,fd00::1/56'] },
      'cannot use --cluster-cidr=10.244.0.0/16,fd00::1/56: of "fd00::1/56", the range is fd00::/56',
    ],
    [
      'three ranges',
      { file: 'service-cidr: [10.96.0.0/12, fd01::/112, fd02::/112]\n' },
      'cannot use service-cidr: 10.96.0.0/12,fd01::/112,fd02::/112 in DIR/config.yaml:1: there are 3; allowed is one, or one of each family',
    ],
    [
      'the root as data directory',
      { flags: ['--data-dir=/'] },
      'cannot use --data-dir=/: allowed is the path of a directory other than /, without colons and commas',
    ],
    [
      'a kubelet directory too deep for its sockets',
      { flags: [`--kubelet-root-dir=/${'d'.repeat(80)}`] },
      `cannot use --kubelet-root-dir=/${'d'.repeat(80)}: allowed is the path of a directory other than /, without colons and commas, of at most 80 bytes`,
    ],
    [
      'a name that is meant as an address',
      { flags: ['--tls-san=10.0.0'] },
      'cannot use --tls-san=10.0.0: allowed is a DNS name in lower case (its first part may be *) or an IPv4 or IPv6 address',
    ],
    [
      'an empty item',
      { flags: ['--disable=coredns,'] },
      'cannot use --disable: it has no value; allowed is coredns, kube-proxy, network-policy, servicelb, metrics-server or local-storage',
    ],
  ],
  'labels and taints': [
    [
      'no equals sign',
      { flags: ['--node-label=disk'] },
      "cannot use --node-label=disk: allowed is a label KEY=VALUE in Kubernetes' syntax, such as example.com/disk=ssd",
    ],
    [
      "a label that is not the kubelet's to set",
      { flags: ['--node-label=node-role.kubernetes.io/worker=true'] },
      'cannot use --node-label=node-role.kubernetes.io/worker=true: a kubelet must not set node-role.kubernetes.io/worker ' +
        'on its own Node; once the node is Ready, use: k8s kubectl label node NAME node-role.kubernetes.io/worker=true',
    ],
    [
      'a label twice',
      { flags: ['--node-label=a=1,a=2'] },
      'cannot use --node-label=a=1,a=2: the label a is there more than once',
    ],
    [
      'an unknown effect',
      { flags: ['--node-taint=a=b:NoRun'] },
      'cannot use --node-taint=a=b:NoRun: allowed is a taint KEY=VALUE:EFFECT or KEY:EFFECT with an effect of NoSchedule, PreferNoSchedule, NoExecute',
    ],
    [
      'a taint twice',
      { flags: ['--node-taint=a=1:NoExecute', '--node-taint=a=2:NoExecute'] },
      'cannot use --node-taint=a=1:NoExecute,a=2:NoExecute: the taint a:NoExecute is there more than once',
    ],
  ],
  'flags passed through': [
    [
      'without a value, of which nothing more is shown',
      { flags: ['--kube-apiserver-arg=oidc-secret hunter2'] },
      'cannot use --kube-apiserver-arg=oidc-secret: allowed is a flag of kube-apiserver with its value, without leading dashes, such as v=4',
    ],
    [
      'with dashes',
      { flags: ['--kubelet-arg=--max-pods=5'] },
      'cannot use --kubelet-arg=--max-pods: the flag goes without leading dashes',
    ],
    [
      'that the daemon owns',
      { flags: ['--kube-apiserver-arg=etcd-servers=http://elsewhere'] },
      'cannot use --kube-apiserver-arg=etcd-servers: etcd-servers belongs to the daemon: the daemon stands in front of its storage; use --etcd-endpoints, with --server-mode=ha',
    ],
    [
      'for which there is a setting',
      { environment: { K8S_KUBELET_ARG: 'v=4 root-dir=/x' } },
      'cannot use K8S_KUBELET_ARG=root-dir in the environment: root-dir belongs to the daemon: use --kubelet-root-dir',
    ],
  ],
  combinations: [
    [
      'ranges that overlap',
      { flags: ['--cluster-cidr=10.100.0.0/16'] },
      'cannot use --cluster-cidr=10.100.0.0/16: it overlaps with the default service-cidr 10.96.0.0/12',
    ],
    [
      'families that differ',
      { file: 'service-cidr: fd01::/112\n' },
      'cannot use the default cluster-cidr 10.244.0.0/16: it is IPv4, and service-cidr: fd01::/112 in DIR/config.yaml:1 is IPv6; both have to be of one family',
    ],
    [
      'a node of the other family',
      { flags: ['--node-ip=fd00::1'] },
      'cannot use --node-ip=fd00::1: it is IPv6, and the default service-cidr 10.96.0.0/12 is IPv4; both have to be of one family',
    ],
    [
      'pods of both families, and Services of one',
      { flags: ['--cluster-cidr=10.244.0.0/16,fd00:244::/56'] },
      'cannot use --cluster-cidr=10.244.0.0/16,fd00:244::/56: it is IPv4 and IPv6, and the default service-cidr 10.96.0.0/12 is IPv4; both have to be of the same families, in one order',
    ],
    [
      'both families in two orders',
      { flags: ['--cluster-cidr=fd00:244::/56,10.244.0.0/16', '--service-cidr=10.96.0.0/12,fd00:96::/112'] },
      'cannot use --cluster-cidr=fd00:244::/56,10.244.0.0/16: it is IPv6 and IPv4, and --service-cidr=10.96.0.0/12,fd00:96::/112 is IPv4 and IPv6; both have to be of the same families, in one order',
    ],
    [
      'ranges that overlap in the second family',
      { flags: ['--cluster-cidr=10.244.0.0/16,fd00::/56', '--service-cidr=10.96.0.0/12,fd00::/112'] },
      'cannot use --cluster-cidr=10.244.0.0/16,fd00::/56: it overlaps with --service-cidr=10.96.0.0/12,fd00::/112',
    ],
    [
      'an address of the second family where there is but one',
      {
        flags: [
          ...['--cluster-cidr=10.244.0.0/16,fd00:244::/56', '--service-cidr=10.96.0.0/12,fd00:96::/112'],
          '--advertise-address=fd00::1',
        ],
      },
      'cannot use --advertise-address=fd00::1: it is IPv6, and --service-cidr=10.96.0.0/12,fd00:96::/112 is IPv4 and IPv6; it has to be of the first family',
    ],
    [
      'an address of the second family in its range',
      {
        flags: [
          ...['--cluster-cidr=10.244.0.0/16,fd00:244::/56', '--service-cidr=10.96.0.0/12,fd00:96::/112'],
          '--node-ip=192.0.2.1,fd00:96::7',
        ],
      },
      'cannot use --service-cidr=10.96.0.0/12,fd00:96::/112: --node-ip=192.0.2.1,fd00:96::7 lies in it; the node needs an address outside',
    ],
    [
      'a DNS address outside of its range',
      { flags: ['--cluster-dns=10.1.0.10'] },
      'cannot use --cluster-dns=10.1.0.10: it lies outside of the default service-cidr 10.96.0.0/12',
    ],
    [
      "the API server's own address for DNS",
      { flags: ['--cluster-dns=10.96.0.1'] },
      'cannot use --cluster-dns=10.96.0.1: the first address of the default service-cidr 10.96.0.0/12 is that of the API server',
    ],
    [
      'a node inside the pod range',
      { flags: ['--node-ip=10.244.0.9'] },
      'cannot use the default cluster-cidr 10.244.0.0/16: --node-ip=10.244.0.9 lies in it; the node needs an address outside',
    ],
    [
      'the port of another component',
      { flags: ['--https-listen-port=10250'] },
      'cannot use --https-listen-port=10250: the kubelet has that port; allowed is any but 10248, 10249, 10250, 10256, 10257, 10259',
    ],
    [
      "data in the kubelet's directory",
      { flags: ['--data-dir=/var/lib/kubelet/k8s'] },
      "cannot use --data-dir=/var/lib/kubelet/k8s: it lies in the default kubelet-root-dir /var/lib/kubelet, which is the kubelet's alone; the other way round is allowed",
    ],
    [
      'a network that nobody has run',
      { flags: ['--network-backend=wireguard'] },
      'cannot use --network-backend=wireguard: WireGuard is not among them, since nobody has run it; take vxlan, and a VPN between the machines where others could listen',
    ],
    [
      'a network that there is not',
      { flags: ['--network-backend=udp'] },
      'cannot use --network-backend=udp: allowed is vxlan, host-gw or none',
    ],
    [
      'a mode for what is left out',
      { flags: ['--disable=kube-proxy', '--kube-proxy-mode=iptables'] },
      'cannot use --kube-proxy-mode=iptables: --disable=kube-proxy leaves kube-proxy out',
    ],
    [
      'metrics for everybody',
      { flags: ['--metrics-address=0.0.0.0:9101'] },
      'cannot use --metrics-address=0.0.0.0:9101: other machines could reach it; name an address of loopback, such as 127.0.0.1:9101',
    ],
    [
      'metrics with TLS',
      { flags: ['--metrics-address=https://127.0.0.1:9101'] },
      'cannot use --metrics-address=https://127.0.0.1:9101: a server or agent serves its metrics without TLS; leave https:// away',
    ],
    [
      'metrics at the port of a component',
      { flags: ['--metrics-address=127.0.0.1:10249'] },
      "cannot use --metrics-address=127.0.0.1:10249: kube-proxy's metrics has that port",
    ],
    [
      'metrics at the port of the API server',
      { flags: ['--metrics-address=127.0.0.1:8443', '--https-listen-port=8443'] },
      'cannot use --metrics-address=127.0.0.1:8443: kube-apiserver has that port',
    ],
    [
      'policies for the pods of another network',
      { flags: ['--cni-conf-dir=/etc/cni/net.d', '--disable=kube-proxy'] },
      'cannot use --cni-conf-dir=/etc/cni/net.d: network policies are enforced for pods of the own network alone; give --disable=network-policy, too',
    ],
    [
      'flags for what is left out',
      { flags: ['--disable=kube-proxy', '--kube-proxy-arg=secret=hunter2'] },
      'cannot use --kube-proxy-arg=secret: --disable=kube-proxy leaves kube-proxy out',
    ],
    [
      'a directory of volumes that are left out',
      { flags: ['--disable=local-storage', '--local-storage-path=/srv/volumes'] },
      'cannot use --local-storage-path=/srv/volumes: --disable=local-storage leaves volumes out',
    ],
    ...(
      [
        ['/', 'allowed is the path of a directory other than /, without colons and commas'],
        ['/srv/a:b', 'allowed is the path of a directory other than /, without colons and commas'],
        [
          '/var/lib/kubelet/pods',
          "it lies in the default kubelet-root-dir /var/lib/kubelet, which is the kubelet's alone",
        ],
        [
          '/var/lib/k8s/pki',
          'it lies in the default data-dir /var/lib/k8s, where allowed is /var/lib/k8s/storage',
        ],
        ['/var/lib', 'the default data-dir /var/lib/k8s lies in it; allowed is a directory of their own'],
      ] as const
    ).map(
      ([path, reason]): Case => [
        `volumes in ${path}`,
        { flags: [`--local-storage-path=${path}`] },
        `cannot use --local-storage-path=${path}: ${reason}`,
      ],
    ),
  ],
}

describe.each(Object.entries(cases))('refused: %s', (_, group) => {
  test.each(group)('%s', async (_what, given, message) => {
    expect(await refusal(given)).toBe(message)
  })
})
