/**
 * Packs the images of nodes (docs/images.md) of what make has put below build/arch: the kubelet in its flavours, and kube-proxy.
 *
 *   node scripts/node-images.ts VERSION ARCH,... zstd|gzip best|fast REPOSITORY OUTPUT_DIR
 *
 * Each becomes an archive for each architecture, which ctr, `docker load` and podman read, and one more for all, if there are several.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { busyboxApplets } from './busybox-applets.ts'
import { compressLayer, forgetOldLayers, isLevel, type LayerCompression, type Level } from './compress.ts'
import {
  directory,
  executable,
  ImageArchive,
  link,
  sha256,
  text,
  type Image,
  type ImageConfig,
  type Layer,
  type Platform,
} from './image-archive.ts'
import { entriesBelow } from './tree.ts'
import { tar, type TarEntry } from '../src/base/tar.ts'

const platforms: Readonly<Record<string, Platform>> = {
  amd64: { architecture: 'amd64', os: 'linux' },
  arm64: { architecture: 'arm64', os: 'linux', variant: 'v8' },
  arm: { architecture: 'arm', os: 'linux', variant: 'v7' },
}

interface Packing {
  readonly version: string
  readonly arches: readonly string[]
  readonly compression: LayerCompression
  readonly level: Level
  readonly repository: string
  readonly outputDir: string
}

/** A registry's, with its port or not, and names below it. */
const repositoryForm = /^[a-z0-9]+([._-]+[a-z0-9]+)*(:\d+)?(\/[a-z0-9]+([._-]+[a-z0-9]+)*)*$/

function readArguments([
  version,
  list,
  compression,
  level,
  repository,
  outputDir,
]: readonly string[]): Packing {
  const arches = list?.split(',') ?? []
  if (
    !version?.startsWith('v') ||
    !arches.every((arch) => arch in platforms) ||
    (compression !== 'zstd' && compression !== 'gzip') ||
    !isLevel(level) ||
    !repository ||
    !repositoryForm.test(repository) ||
    !outputDir
  ) {
    console.error(
      `usage: node-images.ts VERSION (${Object.keys(platforms).join('|')}),... zstd|gzip best|fast REPOSITORY OUTPUT_DIR`,
    )
    process.exit(2)
  }
  return { version, arches, compression, level, repository, outputDir }
}

const packing = readArguments(process.argv.slice(2))

/** What a layer is made of: files of the build for one architecture. */
class Parts {
  readonly #arch: string
  constructor(arch: string) {
    this.#arch = arch
  }
  below(name: string): TarEntry[] {
    return entriesBelow(join('build/arch', this.#arch, name))
  }
  /** A program of the version of Kubernetes, and further names of it. */
  kubernetes(name: string, ...names: readonly string[]): TarEntry[] {
    return programs(join('build/arch', this.#arch, packing.version, name), names.length > 0 ? names : [name])
  }
  program(name: string): TarEntry[] {
    return programs(join('build/arch', this.#arch, name), [name])
  }
  /** The plugins of networks, all or some of them: one program. */
  cni(only?: readonly string[]): TarEntry[] {
    const at = 'opt/cni/bin'
    const table = readFileSync('components/cni/main.go', 'utf8').matchAll(/^\t"([a-z-]*)": .*\.Main,$/gm)
    const names = only ?? [...table].map(([, name = '']) => name)
    return [
      ...[directory('opt'), directory('opt/cni'), directory(at)],
      executable(`${at}/cni`, readFileSync(join('build/arch', this.#arch, 'cni'))),
      ...names.map((name) => link(`${at}/${name}`, 'cni')),
    ]
  }
}

function programs(file: string, [first = '', ...others]: readonly string[]): TarEntry[] {
  return [
    ...[directory('usr'), directory('usr/bin')],
    executable(`usr/bin/${first}`, readFileSync(file)),
    ...others.map((other) => link(`usr/bin/${other}`, first)),
  ]
}

/** Merged, as Debian has it, so that files of its packages find what they are linked with. */
const merged = ['bin', 'sbin', 'lib', 'lib64']

const ground = (extra: readonly TarEntry[]): TarEntry[] => [
  ...['dev', 'etc', 'proc', 'run', 'sys', 'usr', 'var'].map((name) => directory(name)),
  ...merged.flatMap((name) => [directory(`usr/${name}`), link(name, `usr/${name}`)]),
  ...[directory('root', 0o700), directory('tmp', 0o1777), directory('var/lib'), directory('var/log')],
  text('etc/passwd', 'root:x:0:0:root:/root:/bin/sh', 'nobody:x:65534:65534:nobody:/:/bin/false'),
  text('etc/group', 'root:x:0:', 'nogroup:x:65534:'),
  text('etc/nsswitch.conf', 'hosts: files dns'),
  link('etc/os-release', '../usr/lib/os-release'),
  ...extra,
]

/** Of busybox, what is looked for in a shell, and what a kubelet runs. */
const applets = [...busyboxApplets, 'blockdev', 'losetup', 'modprobe', 'nsenter', 'sysctl']

const busybox = (parts: Parts) => [
  ...parts.below('base'),
  ...applets.map((name) => link(`usr/bin/${name}`, 'busybox')),
]

/** Where a kubelet is given its mounts (docs/images.md has the table). */
const mountPoints = ['etc/kubernetes', 'etc/kubernetes/manifests', 'etc/cni', 'etc/cni/net.d'].concat([
  ...['opt', 'opt/cni', 'opt/cni/bin', 'var/lib/kubelet', 'var/log/pods', 'var/log/containers'],
])

/** flannel, and what it has do the work, or stands beside it in flanneld's own configuration. */
const flannelPlugins = ['bandwidth', 'bridge', 'flannel', 'host-local', 'loopback', 'portmap']

const layers = {
  base: (parts: Parts) => ground([...mountPoints.map((path) => directory(path)), ...busybox(parts)]),
  block: (parts: Parts) => parts.below('block'),
  kubelet: (parts: Parts) => parts.kubernetes('kubelet'),
  kubeadm: (parts: Parts) => parts.kubernetes('kubelet-kubeadm', 'kubelet', 'kubeadm'),
  crictl: (parts: Parts) => parts.program('crictl'),
  cni: (parts: Parts) => parts.cni(),
  flannel: (parts: Parts) => parts.cni(flannelPlugins),
  'proxy-base': (parts: Parts) =>
    ground([
      ...parts.below('nft'),
      ...['iptables', 'ip6tables'].flatMap((program) =>
        ['', '-save', '-restore'].map((what) => link(`usr/sbin/${program}${what}`, 'xtables-nft-multi')),
      ),
    ]),
  'kube-proxy': (parts: Parts) => parts.kubernetes('kube-proxy'),
}
type LayerName = keyof typeof layers

interface Recipe {
  readonly name: string
  readonly flavour?: string
  readonly title: string
  readonly layers: readonly LayerName[]
  readonly entrypoint: readonly string[]
}

const kubelet = {
  name: 'kubelet',
  entrypoint: [
    ...['kubelet', '--config=/var/lib/kubelet/config.yaml', '--register-node'],
    '--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf',
    '--kubeconfig=/etc/kubernetes/kubelet.conf',
  ],
} as const

const recipes: readonly Recipe[] = [
  { ...kubelet, title: 'kubelet', layers: ['base', 'kubelet'] },
  {
    ...kubelet,
    ...{ flavour: 'flannel', title: 'kubelet and the CNI plugins of flannel' },
    layers: ['base', 'kubelet', 'flannel'],
  },
  {
    ...kubelet,
    ...{ flavour: 'cni', title: 'kubelet and CNI plugins' },
    layers: ['base', 'block', 'kubelet', 'cni'],
  },
  {
    ...kubelet,
    ...{ flavour: 'kubeadm', title: 'kubelet, kubeadm and crictl' },
    layers: ['base', 'block', 'kubeadm', 'crictl'],
  },
  {
    ...kubelet,
    ...{ flavour: 'kubeadm-cni', title: 'kubelet, kubeadm, crictl and CNI plugins' },
    layers: ['base', 'block', 'kubeadm', 'crictl', 'cni'],
  },
  {
    name: 'kube-proxy',
    title: 'kube-proxy',
    layers: ['proxy-base', 'kube-proxy'],
    entrypoint: ['kube-proxy'],
  },
]

const path = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

const config = ({ title, entrypoint }: Recipe): ImageConfig => ({
  Env: [path],
  Entrypoint: entrypoint,
  WorkingDir: '/',
  Labels: {
    'org.opencontainers.image.title': title,
    'org.opencontainers.image.version': packing.version,
  },
})

async function layer(files: readonly TarEntry[]): Promise<Layer> {
  const content = tar(files)
  return {
    content: await compressLayer(content, packing.level, packing.compression),
    diffId: `sha256:${sha256(Buffer.concat(content))}`,
    compression: packing.compression,
  }
}

/** Side by side, as each is compressed by one processor. */
async function layersOf(arch: string): Promise<ReadonlyMap<LayerName, Layer>> {
  const parts = new Parts(arch)
  const names = [...new Set(recipes.flatMap((recipe) => recipe.layers))]
  return new Map(
    await Promise.all(names.map(async (name) => [name, await layer(layers[name](parts))] as const)),
  )
}

function write(name: string, archive: readonly Buffer[]): void {
  const file = join(packing.outputDir, `${name}.tar`)
  const content = Buffer.concat(archive)
  writeFileSync(`${file}.tmp`, content)
  renameSync(`${file}.tmp`, file)
  console.log(`${file}: ${(content.length / 1e6).toFixed(1)} MB`)
}

mkdirSync(packing.outputDir, { recursive: true })
const made = new Map<string, Image[]>()
for (const arch of packing.arches) {
  const built = await layersOf(arch)
  for (const recipe of recipes) {
    const tag = [packing.version, recipe.flavour].filter((part) => part !== undefined).join('-')
    const image: Image = {
      references: [`${packing.repository}/${recipe.name}:${tag}`],
      platform: platforms[arch] as Platform,
      config: config(recipe),
      layers: recipe.layers.map((name) => built.get(name) as Layer),
    }
    const name = `${recipe.name}-${tag}`
    const archive = new ImageArchive()
    archive.add(image)
    write(`${name}-${arch}`, archive.tar({ docker: true }))
    made.set(name, [...(made.get(name) ?? []), image])
  }
}
if (packing.arches.length > 1) {
  for (const [name, images] of made) {
    const archive = new ImageArchive()
    archive.addIndex(images[0]?.references ?? [], images)
    write(name, archive.tar())
  }
}
forgetOldLayers()
