import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  cpSync,
  mkdirSync,
  mkdtempDisposableSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'

// What scripts/node-images.ts packs of a tree in which programs are a few bytes.

const root = new URL('../../../', import.meta.url).pathname
const version = 'v1.37.1'
const flavours = ['', '-flannel', '-cni', '-kubeadm', '-kubeadm-cni']

function tree() {
  const directory = mkdtempDisposableSync(join(tmpdir(), 'k8s-node-images-'))
  const write = (path: string, content: string) => {
    mkdirSync(dirname(join(directory.path, path)), { recursive: true })
    writeFileSync(join(directory.path, path), content, { mode: 0o755 })
  }
  for (const arch of ['amd64', 'arm64', 'arm']) {
    for (const program of ['kubelet', 'kubelet-kubeadm', 'kube-proxy'])
      write(`build/arch/${arch}/${version}/${program}`, `${program} of ${arch}`)
    for (const file of ['cni', 'crictl', 'base/usr/bin/busybox', 'block/usr/sbin/blkid', 'nft/usr/sbin/nft'])
      write(`build/arch/${arch}/${file}`, `${file} of ${arch}`)
    write(`build/arch/${arch}/base/.complete`, '')
    symlinkSync('blkid', join(directory.path, `build/arch/${arch}/block/usr/sbin/other`))
  }
  cpSync(join(root, 'components/cni/main.go'), join(directory.path, 'components/cni/main.go'))
  return directory
}

function pack(directory: string, { arches = 'amd64', compression = 'zstd', output = 'out' }) {
  const { SECTIONS_DIR: _, ...env } = process.env
  const given = [version, arches, compression, 'fast', 'k8s.local', output]
  execFileSync(process.execPath, [join(root, 'scripts/node-images.ts'), ...given], { cwd: directory, env })
}

interface Described {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
  readonly platform?: { readonly architecture: string; readonly variant?: string }
  readonly annotations?: Readonly<Record<string, string>>
}

function open(directory: string, name: string) {
  const file = join(directory, 'out', `${name}.tar`)
  const names = execFileSync('tar', ['-tf', file], { encoding: 'utf8' }).trim().split('\n')
  const read = (path: string) => execFileSync('tar', ['-xOf', file, path])
  const document = <T>(path: string) => JSON.parse(read(path).toString()) as T
  const blobPath = ({ digest }: { digest: string }) => `blobs/${digest.replace(':', '/')}`
  /** With what its descriptor says of it held to what it is. */
  const blob = (described: Described) => {
    const content = read(blobPath(described))
    expect(`sha256:${createHash('sha256').update(content).digest('hex')}`).toBe(described.digest)
    expect(content.length).toBe(described.size)
    return content
  }
  const manifestOf = (described: Described) => {
    const manifest = JSON.parse(blob(described).toString()) as { config: Described; layers: Described[] }
    const config = JSON.parse(blob(manifest.config).toString()) as {
      architecture: string
      variant?: string
      config: { Entrypoint: string[]; Labels: Record<string, string> }
      rootfs: { diff_ids: string[] }
    }
    return { ...manifest, content: config }
  }
  return { names, document, blob, blobPath, manifestOf }
}

const listed = (layer: Buffer) =>
  execFileSync('tar', ['-tf', '-'], { input: layer, encoding: 'utf8' }).trim().split('\n')

describe('the images of nodes', () => {
  test('are archives for each flavour, whose documents fit what is in them', () => {
    using directory = tree()
    pack(directory.path, {})
    const expected = [...flavours.map((flavour) => `kubelet-${version}${flavour}`), `kube-proxy-${version}`]
    expect(readdirSync(join(directory.path, 'out')).toSorted()).toEqual(
      expected.map((name) => `${name}-amd64.tar`).toSorted(),
    )
    for (const name of expected) {
      const archive = open(directory.path, `${name}-amd64`)
      expect(archive.document('oci-layout')).toEqual({ imageLayoutVersion: '1.0.0' })
      const { manifests } = archive.document<{ manifests: Described[] }>('index.json')
      expect(manifests).toHaveLength(1)
      const [described] = manifests as [Described]
      const reference = `k8s.local/${name.replace(/-v/, ':v')}`
      expect(described.annotations).toEqual({
        'io.containerd.image.name': reference,
        'org.opencontainers.image.ref.name': reference.split(':')[1],
      })
      const { config, layers, content } = archive.manifestOf(described)
      expect(content).toMatchObject({ architecture: 'amd64', os: 'linux' })
      // Docker's own document of the same.
      expect(archive.document('manifest.json')).toEqual([
        { Config: archive.blobPath(config), RepoTags: [reference], Layers: layers.map(archive.blobPath) },
      ])
      const digests = layers.map((layer) => {
        expect(layer.mediaType).toBe('application/vnd.oci.image.layer.v1.tar+zstd')
        return `sha256:${createHash('sha256')
          .update(zstdDecompressSync(archive.blob(layer)))
          .digest('hex')}`
      })
      expect(content.rootfs).toEqual({ type: 'layers', diff_ids: digests })
      // Nothing is in an archive that no document names.
      const blobs = [described, config, ...layers].map(archive.blobPath)
      const documents = ['blobs', 'blobs/sha256', 'oci-layout', 'index.json', 'manifest.json']
      expect(archive.names.map((path) => path.replace(/\/$/, '')).toSorted()).toEqual(
        [...documents, ...blobs].toSorted(),
      )
    }
  })

  test('have in each flavour what it is for', () => {
    using directory = tree()
    pack(directory.path, {})
    const filesOf = (name: string) => {
      const archive = open(directory.path, `${name}-amd64`)
      const [described] = archive.document<{ manifests: Described[] }>('index.json').manifests as [Described]
      const { layers, content } = archive.manifestOf(described)
      const files = layers.flatMap((layer) => listed(zstdDecompressSync(archive.blob(layer))))
      return { files, ...content.config }
    }
    const [plain, flannel, cni, kubeadm, both] = flavours.map((flavour) =>
      filesOf(`kubelet-${version}${flavour}`),
    )
    const has = (image: { files: string[] } | undefined) =>
      ['kubelet', 'kubeadm', 'crictl']
        .map((name) => `usr/bin/${name}`)
        .concat('opt/cni/bin/bridge', 'opt/cni/bin/macvlan', 'usr/sbin/blkid')
        .map((path) => image?.files.includes(path))
    expect(has(plain)).toEqual([true, false, false, false, false, false])
    expect(has(flannel)).toEqual([true, false, false, true, false, false])
    expect(has(cni)).toEqual([true, false, false, true, true, true])
    expect(has(kubeadm)).toEqual([true, true, true, false, false, true])
    expect(has(both)).toEqual([true, true, true, true, true, true])
    for (const image of [plain, flannel, cni, kubeadm, both]) {
      expect(image?.Entrypoint).toEqual([
        ...['kubelet', '--config=/var/lib/kubelet/config.yaml', '--register-node'],
        '--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf',
        '--kubeconfig=/etc/kubernetes/kubelet.conf',
      ])
      for (const path of ['usr/bin/mount', 'usr/bin/umount', 'usr/bin/nsenter', 'usr/bin/sh', 'bin', 'lib64'])
        expect(image?.files).toContain(path)
      expect(image?.files.filter((path) => path.includes('.complete'))).toEqual([])
    }
    const proxy = filesOf(`kube-proxy-${version}`)
    for (const path of ['kube-proxy', 'iptables-restore', 'ip6tables-save', 'nft'])
      expect(proxy.files.some((file) => file.endsWith(`bin/${path}`))).toBe(true)
  })

  test.each(['zstd', 'gzip'])('are the same twice, with layers of %s', (compression) => {
    const packed = [tree(), tree()].map((directory) => {
      using _ = directory
      pack(directory.path, { compression })
      const out = join(directory.path, 'out')
      return readdirSync(out).map((name) => [name, readFileSync(join(out, name))] as const)
    })
    expect(packed[0]).toEqual(packed[1])
  })

  test('have layers that old runtimes know, where they are asked for', () => {
    using directory = tree()
    pack(directory.path, { compression: 'gzip' })
    const archive = open(directory.path, `kubelet-${version}-amd64`)
    const [described] = archive.document<{ manifests: Described[] }>('index.json').manifests as [Described]
    for (const layer of archive.manifestOf(described).layers) {
      expect(layer.mediaType).toBe('application/vnd.oci.image.layer.v1.tar+gzip')
      expect(listed(gunzipSync(archive.blob(layer))).length).toBeGreaterThan(0)
    }
  })

  test('are one for several architectures, too', () => {
    using directory = tree()
    pack(directory.path, { arches: 'amd64,arm64,arm' })
    expect(readdirSync(join(directory.path, 'out'))).toHaveLength(6 * 4)
    const archive = open(directory.path, `kubelet-${version}-kubeadm`)
    const { manifests } = archive.document<{ manifests: Described[] }>('index.json')
    expect(manifests.map(({ annotations }) => annotations?.['io.containerd.image.name'])).toEqual([
      `k8s.local/kubelet:${version}-kubeadm`,
    ])
    const index = JSON.parse(archive.blob(manifests[0] as Described).toString()) as { manifests: Described[] }
    expect(index.manifests.map(({ platform }) => platform)).toEqual([
      { architecture: 'amd64', os: 'linux' },
      { architecture: 'arm64', os: 'linux', variant: 'v8' },
      { architecture: 'arm', os: 'linux', variant: 'v7' },
    ])
    for (const described of index.manifests) {
      const { layers, content } = archive.manifestOf(described)
      expect(content.architecture).toBe(described.platform?.architecture)
      const contents = layers.map((layer) => zstdDecompressSync(archive.blob(layer)).toString('latin1'))
      expect(contents.join('')).toContain(`kubelet-kubeadm of ${content.architecture}`)
    }
  })

  test.each([
    ['an unknown architecture', [version, 'amd64,mips', 'zstd', 'fast', 'k8s.local', 'out']],
    ['another compression', [version, 'amd64', 'xz', 'fast', 'k8s.local', 'out']],
    ['what is no repository', [version, 'amd64', 'zstd', 'fast', 'Nodes:latest', 'out']],
    ['no version', ['1.37', 'amd64', 'zstd', 'fast', 'k8s.local', 'out']],
  ])('are not packed for %s', (_, given) => {
    const { status, stderr } = spawnSync(process.execPath, [join(root, 'scripts/node-images.ts'), ...given], {
      encoding: 'utf8',
    })
    expect(status).toBe(2)
    expect(stderr).toContain('amd64|arm64|arm')
  })
})
