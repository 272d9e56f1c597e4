/**
 * Packs the images of a program, those that the daemon imports and the tests', as an OCI image archive, which `docker load` reads, too, and which is
 * compressed with zstd. Their files are the same, in it once, and unpacked once.
 *
 *   node scripts/image.ts REPOSITORY/NAME:VERSION... BINARY OUTPUT best|fast
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { busyboxApplets } from './busybox-applets.ts'
import { compress, isLevel } from './compress.ts'
import {
  directory,
  executable,
  ImageArchive,
  link,
  plainLayer,
  text,
  type Image,
  type ImageConfig,
} from './image-archive.ts'
import type { TarEntry } from '../src/base/tar.ts'

type Recipe = (binary: Buffer) => { readonly files: readonly TarEntry[]; readonly config: ImageConfig }

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
      ...addonNames.map((path) => link(path, 'addons')),
    ],
    config: { User: '65532:65532', Env: [path], Entrypoint: [`/${name}`], WorkingDir: '/' },
  })

/** One program with two names. */
const pauseFiles = (binary: Buffer): TarEntry[] => [executable('pause', binary), link('volume', 'pause')]

const recipes: Readonly<Record<string, Recipe>> = {
  // 65535: upstream's pause image runs as nobody of its own, so that a pod's first process owns nothing.
  pause: (binary) => ({
    files: pauseFiles(binary),
    config: { User: '65535:65535', Entrypoint: ['/pause'], WorkingDir: '/' },
  }),
  volume: (binary) => ({ files: pauseFiles(binary), config: { Entrypoint: ['/volume'], WorkingDir: '/' } }),
  ...Object.fromEntries(addonNames.map((name) => [name, addon(name)])),
  // Called as upstream's image calls it. Whoever runs it says as which user.
  traefik: (binary) => ({
    files: [directory('tmp', 0o1777), executable('traefik', binary)],
    config: { Env: [path], Entrypoint: ['/traefik'], WorkingDir: '/' },
  }),
  busybox: (binary) => ({
    files: [
      directory('bin'),
      executable('bin/busybox', binary),
      ...busyboxApplets.map((name) => link(`bin/${name}`, 'busybox')),
      directory('etc'),
      text('etc/group', 'root:x:0:', 'nogroup:x:65534:'),
      text('etc/passwd', 'root:x:0:0:root:/root:/bin/sh', 'nobody:x:65534:65534:nobody:/home:/bin/false'),
      directory('home'),
      directory('root', 0o700),
      directory('tmp', 0o1777),
      directory('usr'),
      link('usr/bin', '../bin'),
      directory('var'),
      directory('var/www'),
      text('var/www/index.html', 'It works.'),
    ],
    config: { Env: [path], Cmd: ['sh'], WorkingDir: '/' },
  }),
}

function image(reference: string, binary: Buffer): Image {
  const name = /^[a-z0-9./]+\/(?<name>[a-z-]+):.+$/.exec(reference)?.groups?.['name'] ?? ''
  const recipe = recipes[name]
  if (!recipe) usage()
  const { files, config } = recipe(binary)
  return {
    references: [reference],
    platform: { architecture: 'amd64', os: 'linux' },
    config,
    layers: [plainLayer(files)],
  }
}

function usage(): never {
  console.error(
    `usage: image.ts REPOSITORY/(${Object.keys(recipes).join('|')}):VERSION... BINARY OUTPUT best|fast`,
  )
  process.exit(2)
}

const references = process.argv.slice(2)
const [binaryPath, output, level] = references.splice(-3)
if (!binaryPath || !output || !isLevel(level) || references.length === 0) usage()

const binary = readFileSync(binaryPath)
const archive = new ImageArchive()
archive.add(...references.map((reference) => image(reference, binary)))

// 1 MiB: containerd, which unpacks it, has 30 MB more of garbage half a minute later with the 8 MiB of level 19. It costs 4 % of the size.
writeFileSync(`${output}.tmp`, await compress(archive.tar({ docker: true }), level, 20))
renameSync(`${output}.tmp`, output)
