import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { nodeCidrMaskSize, nodePodCidr, renderCniConfig } from '../../../../src/node/render/cni-config.ts'
import {
  type ContainerdOptions,
  renderContainerdConfig,
} from '../../../../src/node/render/containerd-config.ts'
import { type KubeletOptions, renderKubeletConfig } from '../../../../src/node/render/kubelet-config.ts'

describe('containerd', () => {
  const options: ContainerdOptions = {
    root: '/data/containerd',
    state: '/data/run/containerd',
    socket: '/data/run/containerd/containerd.sock',
    dropInDir: '/data/etc/containerd.d',
    snapshotter: 'overlayfs',
    pauseImage: 'k8s.local/pause:1',
    shim: '/payload/bin/containerd-shim-runc-v2',
    runc: '/payload/bin/runc',
    cniBinDirs: ['/payload/bin/cni', '/opt/cni/bin'],
    cniConfDir: '/data/etc/cni',
    cgroupDriver: 'systemd',
    canLowerOomScore: true,
  }
  const lines = (changed: Partial<ContainerdOptions> = {}) =>
    renderContainerdConfig({ ...options, ...changed }).split('\n')

  test('keeps all it makes below its own directories', () => {
    const text = renderContainerdConfig(options)
    for (const line of [
      'version = 4',
      'root = "/data/containerd"',
      'state = "/data/run/containerd"',
      'address = "/data/run/containerd/containerd.sock"',
      'address = "/data/run/containerd/containerd.sock.ttrpc"',
      'imports = ["/data/etc/containerd.d/*.toml"]',
      'Root = "/data/run/containerd/runc"',
      'netns_mounts_under_state_dir = true',
      '  "io.containerd.internal.v1.opt",',
      'sandbox = "k8s.local/pause:1"',
      'bin_dirs = ["/payload/bin/cni", "/opt/cni/bin"]',
    ]) {
      expect(text.split('\n')).toContain(line)
    }
  })

  test.each([
    { cgroupDriver: 'systemd', line: 'SystemdCgroup = true' },
    { cgroupDriver: 'cgroupfs', line: 'SystemdCgroup = false' },
  ] as const)('uses the $cgroupDriver driver', ({ cgroupDriver, line }) => {
    expect(lines({ cgroupDriver })).toContain(line)
  })

  test('asks for a lower OOM score only where it may have one', () => {
    expect(lines()).toEqual(expect.arrayContaining(['oom_score = -999', 'restrict_oom_score_adj = false']))
    const without = lines({ canLowerOomScore: false })
    expect(without).toContain('restrict_oom_score_adj = true')
    expect(without.join('\n')).not.toContain('oom_score =')
  })

  test('quotes what TOML would take for something else', () => {
    expect(lines({ root: '/a "quoted" \\ path' })).toContain('root = "/a \\"quoted\\" \\\\ path"')
  })
})

describe('the kubelet', () => {
  const options: KubeletOptions = {
    cgroupVersion: 2,
    cgroupDriver: 'systemd',
    canLowerOomScore: true,
    userNamespace: false,
    proxyMode: 'nftables',
    containerdSocket: '/data/run/containerd/containerd.sock',
    clientCaFile: '/data/pki/client-ca.crt',
    serving: { certFile: '/data/pki/kubelet.crt', keyFile: '/data/pki/kubelet.key' },
    clusterDns: 'fd00::a',
    clusterDomain: 'cluster.local',
    rootDir: '/var/lib/kubelet',
    staticPodDir: '/data/manifests',
    resolvConf: '/etc/resolv.conf',
    nodeTaint: ['dedicated=db:NoSchedule', 'example.org/maintenance:NoExecute'],
  }
  const rendered = (changed: Partial<KubeletOptions> = {}) =>
    parse(renderKubeletConfig({ ...options, ...changed })) as Record<string, unknown>

  test('lets nobody in without asking the API server, and listens nowhere else', () => {
    expect(rendered()).toMatchObject({
      apiVersion: 'kubelet.config.k8s.io/v1beta1',
      kind: 'KubeletConfiguration',
      authentication: {
        anonymous: { enabled: false },
        webhook: { enabled: true },
        x509: { clientCAFile: '/data/pki/client-ca.crt' },
      },
      authorization: { mode: 'Webhook' },
      readOnlyPort: 0,
      healthzBindAddress: '127.0.0.1',
      rotateCertificates: false,
      serverTLSBootstrap: false,
      containerRuntimeEndpoint: 'unix:///data/run/containerd/containerd.sock',
      clusterDNS: ['fd00::a'],
    })
  })

  test('registers taints with and without a value', () => {
    expect(rendered()['registerWithTaints']).toEqual([
      { key: 'dedicated', value: 'db', effect: 'NoSchedule' },
      { key: 'example.org/maintenance', effect: 'NoExecute' },
    ])
    expect(rendered({ nodeTaint: [] })['registerWithTaints']).toEqual([])
  })

  test.each([
    {
      what: 'v2 with systemd',
      changed: {},
      expected: {
        cgroupDriver: 'systemd',
        failCgroupV1: undefined,
        oomScoreAdj: undefined,
        featureGates: undefined,
      },
    },
    {
      what: 'v1 with cgroupfs',
      changed: { cgroupVersion: 1, cgroupDriver: 'cgroupfs' },
      expected: { cgroupDriver: 'cgroupfs', failCgroupV1: false },
    },
    { what: 'no CAP_SYS_RESOURCE', changed: { canLowerOomScore: false }, expected: { oomScoreAdj: 0 } },
    {
      what: 'a user namespace',
      changed: { userNamespace: true },
      expected: { featureGates: { KubeletInUserNamespace: true } },
    },
    { what: 'nftables', changed: {}, expected: { makeIPTablesUtilChains: false } },
    { what: 'iptables', changed: { proxyMode: 'iptables' }, expected: { makeIPTablesUtilChains: true } },
  ] satisfies { what: string; changed: Partial<KubeletOptions>; expected: Record<string, unknown> }[])(
    'is configured for $what',
    ({ changed, expected }) => {
      const document = rendered(changed)
      for (const [key, value] of Object.entries(expected)) expect([key, document[key]]).toEqual([key, value])
    },
  )
})

describe('CNI', () => {
  test.each([
    { cluster: '10.244.0.0/16', mask: 24, node: '10.244.0.0/24' },
    { cluster: '10.0.0.0/8', mask: 24, node: '10.0.0.0/24' },
    { cluster: '192.168.7.128/26', mask: 26, node: '192.168.7.128/26' },
    { cluster: 'fd00:10:244::/56', mask: 64, node: 'fd00:10:244::/64' },
    { cluster: 'fd00::/112', mask: 112, node: 'fd00::/112' },
  ])('gives the first node of $cluster $node', ({ cluster, mask, node }) => {
    expect([nodeCidrMaskSize(cluster), nodePodCidr(cluster)]).toEqual([mask, node])
  })

  test('plugs pods into a bridge that translates with the backend of kube-proxy', () => {
    const text = renderCniConfig({
      podCidr: '10.244.0.0/24',
      backend: 'nftables',
      ipamDir: '/data/run/cni',
      mtu: 1400,
    })
    expect(JSON.parse(text)).toEqual({
      cniVersion: '1.0.0',
      name: 'k8s',
      plugins: [
        {
          type: 'bridge',
          bridge: 'cni0',
          isGateway: true,
          forceAddress: true,
          hairpinMode: true,
          mtu: 1400,
          ipam: {
            type: 'host-local',
            dataDir: '/data/run/cni',
            ranges: [[{ subnet: '10.244.0.0/24' }]],
            routes: [{ dst: '0.0.0.0/0' }],
          },
        },
        { type: 'portmap', backend: 'nftables', snat: true, capabilities: { portMappings: true } },
      ],
    })
  })

  test('gives pods an address of each range, of both families', () => {
    expect(nodePodCidr('10.244.0.0/16,fd00:244::/48')).toBe('10.244.0.0/24,fd00:244::/64')
    const podCidr = 'fd00:244::/64,10.244.0.0/24'
    const text = renderCniConfig({ podCidr, backend: 'nftables', ipamDir: '/d', mtu: undefined })
    expect(JSON.parse(text).plugins[0].ipam).toMatchObject({
      ranges: [[{ subnet: 'fd00:244::/64' }], [{ subnet: '10.244.0.0/24' }]],
      routes: [{ dst: '::/0' }, { dst: '0.0.0.0/0' }],
    })
  })

  test('leaves the MTU to the kernel where it is not known, and routes IPv6', () => {
    const text = renderCniConfig({ podCidr: 'fd00::/64', backend: 'iptables', ipamDir: '/d', mtu: undefined })
    const { plugins } = JSON.parse(text) as { plugins: { mtu?: number; ipam?: { routes: unknown } }[] }
    expect(plugins[0]).not.toHaveProperty('mtu')
    expect(plugins[0]?.ipam?.routes).toEqual([{ dst: '::/0' }])
  })
})
