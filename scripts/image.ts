/**
 * Packs container images as an OCI image archive, compressed with zstd. No registry and no container tool is needed:
 * an image is a tar of files and three small JSON documents. What several images of an archive have of the same files is in it once,
 * and unpacked once.
 *
 *   node scripts/image.ts k8s.local/NAME:VERSION... BINARY OUTPUT best|fast
 */
import { createHash } from 'node:crypto'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { compress, isLevel } from './compress.ts'
import { tar, type TarEntry } from '../src/base/tar.ts'

interface Image {
  readonly files: readonly TarEntry[]
  readonly config: {
    readonly User?: string
    readonly Env?: readonly string[]
    readonly Entrypoint?: readonly string[]
    readonly Cmd?: readonly string[]
    readonly WorkingDir?: string
  }
}

type Recipe = (binary: Buffer) => Image

const directory = (path: string, mode = 0o755): TarEntry => ({ path, type: 'directory', mode })
const executable = (path: string, content: Buffer): TarEntry => ({ path, type: 'file', mode: 0o755, content })
const text = (path: string, ...lines: string[]): TarEntry => ({
  path,
  type: 'file',
  mode: 0o644,
  content: Buffer.from(lines.map((line) => `${line}\n`).join('')),
})

const busyboxApplets = [
  ...[
    'ash',
    'awk',
    'base64',
    'basename',
    'cat',
    'chgrp',
    'chmod',
    'chown',
    'chroot',
    'cmp',
    'cp',
    'cut',
    'date',
    'dd',
  ],
  ...[
    'df',
    'diff',
    'dirname',
    'dmesg',
    'du',
    'echo',
    'env',
    'expr',
    'false',
    'find',
    'fold',
    'free',
    'grep',
    'gunzip',
  ],
  ...[
    'gzip',
    'head',
    'hexdump',
    'hostname',
    'httpd',
    'id',
    'ifconfig',
    'ip',
    'kill',
    'killall',
    'less',
    'ln',
    'ls',
    'md5sum',
  ],
  ...['mkdir', 'mkfifo', 'mknod', 'mktemp', 'more', 'mount', 'mv', 'nc', 'netstat', 'nslookup', 'od'],
  ...['pidof', 'ping', 'printf', 'ps', 'pwd', 'readlink', 'realpath', 'rm', 'rmdir', 'route', 'sed'],
  ...[
    'seq',
    'setsid',
    'sh',
    'sha256sum',
    'sleep',
    'sort',
    'stat',
    'stty',
    'sync',
    'tail',
    'tar',
    'tee',
    'telnet',
    'test',
  ],
  ...[
    'time',
    'timeout',
    'top',
    'touch',
    'tr',
    'traceroute',
    'true',
    'tty',
    'umount',
    'uname',
    'uniq',
    'unzip',
    'uptime',
  ],
  ...['vi', 'watch', 'wc', 'wget', 'which', 'whoami', 'xargs', 'yes', 'zcat'],
]

/** The names of components/addons/main.go. */
const addonNames = ['coredns', 'local-path-provisioner', 'metrics-server']

const path = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The program of the add-ons, called by a name of its own. */
const addon =
  (name: string): Recipe =>
  (binary) => ({
    files: [
      directory('etc'),
      text('etc/passwd', 'addon:x:65532:65532::/:/sbin/nologin'),
      executable('addons', binary),
      ...addonNames.map((path): TarEntry => ({ path, type: 'symlink', target: 'addons' })),
    ],
    config: { User: '65532:65532', Env: [path], Entrypoint: [`/${name}`], WorkingDir: '/' },
  })

/** One program with two names. */
const pauseFiles = (binary: Buffer): TarEntry[] => [
  executable('pause', binary),
  { path: 'volume', type: 'symlink', target: 'pause' },
]

const recipes: Readonly<Record<string, Recipe>> = {
  // 65535: upstream's pause image runs as nobody of its own, so that a pod's first process owns nothing.
  pause: (binary) => ({
    files: pauseFiles(binary),
    config: { User: '65535:65535', Entrypoint: ['/pause'], WorkingDir: '/' },
  }),
  volume: (binary) => ({ files: pauseFiles(binary), config: { Entrypoint: ['/volume'], WorkingDir: '/' } }),
  ...Object.fromEntries(addonNames.map((name) => [name, addon(name)])),
  busybox: (binary) => ({
    files: [
      directory('bin'),
      executable('bin/busybox', binary),
      ...busyboxApplets.map(
        (name): TarEntry => ({ path: `bin/${name}`, type: 'symlink', target: 'busybox' }),
      ),
      directory('etc'),
      text('etc/group', 'root:x:0:', 'nogroup:x:65534:'),
      text('etc/passwd', 'root:x:0:0:root:/root:/bin/sh', 'nobody:x:65534:65534:nobody:/home:/bin/false'),
      directory('home'),
      directory('root', 0o700),
      directory('tmp', 0o1777),
      directory('usr'),
      { path: 'usr/bin', type: 'symlink', target: '../bin' },
      directory('var'),
      directory('var/www'),
      text('var/www/index.html', 'It works.'),
    ],
    config: { Env: [path], Cmd: ['sh'], WorkingDir: '/' },
  }),
}

interface Descriptor {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
}

const archive = new Map<string, TarEntry>()

function add(entry: TarEntry): void {
  archive.set(entry.path, entry)
}

function blob(mediaType: string, content: Buffer): Descriptor {
  const hex = createHash('sha256').update(content).digest('hex')
  add({ path: `blobs/sha256/${hex}`, type: 'file', mode: 0o644, content })
  return { mediaType, digest: `sha256:${hex}`, size: content.length }
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

/** What the index of the archive has of an image. */
function image(reference: string, binary: Buffer) {
  const { name = '', version = '' } =
    /^k8s\.local\/(?<name>[a-z-]+):(?<version>.+)$/.exec(reference)?.groups ?? {}
  const recipe = recipes[name]
  if (!recipe) usage()
  const { files, config } = recipe(binary)
  const layer = blob('application/vnd.oci.image.layer.v1.tar', Buffer.concat(tar(files)))
  const imageConfig = blob(
    'application/vnd.oci.image.config.v1+json',
    json({
      architecture: 'amd64',
      os: 'linux',
      config,
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
    }),
  )
  const manifestType = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = blob(
    manifestType,
    json({ schemaVersion: 2, mediaType: manifestType, config: imageConfig, layers: [layer] }),
  )
  const annotations = {
    'io.containerd.image.name': reference,
    'org.opencontainers.image.ref.name': version,
  }
  return { ...manifest, platform: { architecture: 'amd64', os: 'linux' }, annotations }
}

function usage(): never {
  console.error(
    `usage: image.ts k8s.local/(${Object.keys(recipes).join('|')}):VERSION... BINARY OUTPUT best|fast`,
  )
  process.exit(2)
}

const references = process.argv.slice(2)
const [binaryPath, output, level] = references.splice(-3)
if (!binaryPath || !output || !isLevel(level) || references.length === 0) usage()

const binary = readFileSync(binaryPath)
add(directory('blobs'))
add(directory('blobs/sha256'))
const manifests = references.map((reference) => image(reference, binary))
add(text('oci-layout', '{"imageLayoutVersion":"1.0.0"}'))
add({ path: 'index.json', type: 'file', mode: 0o644, content: json({ schemaVersion: 2, manifests }) })

// 1 MiB: containerd, which unpacks it, has 30 MB more of garbage half a minute later with the 8 MiB of level 19. It costs 4 % of the size.
writeFileSync(`${output}.tmp`, await compress(tar([...archive.values()]), level, 20))
renameSync(`${output}.tmp`, output)
