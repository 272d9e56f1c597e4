/**
 * Packs the images that the end-to-end suite of Kubernetes asks for, under the names that it knows them by, as one OCI archive: what
 * they have in common is in it once.
 *
 *   node test/long/e2e/images.ts SOURCES BIN_DIR DIRECTORY
 *
 * SOURCES are upstream's own (test/images), BIN_DIR has busybox and pause, DIRECTORY has agnhost, nonewprivs and base.tar, and gets
 * images.tar.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  directory,
  ImageArchive,
  link,
  plainLayer,
  sha256,
  text,
  type ImageConfig,
  type Layer,
} from '../../../scripts/image-archive.ts'
import type { TarEntry } from '../../../src/base/tar.ts'

const [sources = '', programs = '', out = ''] = process.argv.slice(2)
const registry = 'registry.k8s.io/e2e-test-images'
const path = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const baseTar = readFileSync(join(out, 'base.tar'))
const base: Layer = { content: baseTar, diffId: `sha256:${sha256(baseTar)}` }

const file = (name: string, from: string, mode = 0o755): TarEntry => ({
  ...{ path: name, type: 'file', mode },
  content: readFileSync(from),
})
const ofBase = (name: string) =>
  execFileSync('tar', ['-xOf', join(out, 'base.tar'), `./${name}`], { encoding: 'utf8' })

const applets = execFileSync(join(programs, 'busybox'), ['--list'], { encoding: 'utf8' })
  .split('\n')
  .filter((name) => name !== '' && name !== 'busybox')
const busybox: readonly TarEntry[] = [
  ...[
    directory('bin'),
    directory('etc'),
    directory('home'),
    directory('root', 0o700),
    directory('tmp', 0o1777),
  ],
  file('bin/busybox', join(programs, 'busybox')),
  ...applets.map((name) => link(`bin/${name}`, 'busybox')),
  text('etc/passwd', 'root:x:0:0:root:/root:/bin/sh', 'nobody:x:65534:65534:nobody:/:/bin/false'),
  text('etc/group', 'root:x:0:', 'nogroup:x:65534:'),
]
const certificate = join(sources, 'agnhost/porter/localhost')
const agnhost: readonly TarEntry[] = [
  directory('uploads', 0o1777),
  file('agnhost', join(out, 'agnhost')),
  link('agnhost-2', 'agnhost'),
  file('localhost.crt', `${certificate}.crt`, 0o644),
  file('localhost.key', `${certificate}.key`, 0o644),
  text('etc/passwd', `${ofBase('etc/passwd')}user-defined-in-image:x:1000:1000::/home/u:/bin/sh`),
  text(
    'etc/group',
    `${ofBase('etc/group')}user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image`,
  ),
]
/** The pages of upstream's own two images are beside them. */
const site = (name: string) =>
  [`${name}.jpg`, 'data.json'].map((page) => file(page, join(sources, name, 'html', page), 0o644))

interface Image {
  readonly names: readonly string[]
  readonly layers: readonly Layer[]
  readonly config: ImageConfig
}

const onAgnhost = [base, plainLayer(agnhost)]
const onBusybox = [plainLayer(busybox)]
const images: readonly Image[] = [
  { names: [`${registry}/busybox:1.37.0-2`], layers: onBusybox, config: { Cmd: ['sh'] } },
  { names: [`${registry}/nonroot:1.5`], layers: onBusybox, config: { Cmd: ['sh'], User: '1234' } },
  {
    names: ['2.66.1', '2.55'].map((version) => `${registry}/agnhost:${version}`),
    layers: onAgnhost,
    config: { Entrypoint: ['/agnhost'], Cmd: ['pause'] },
  },
  ...['kitten', 'nautilus'].map((name) => ({
    names: [`${registry}/${name}:1.8`],
    layers: [...onAgnhost, plainLayer(site(name))],
    config: { Entrypoint: ['/agnhost'], Cmd: ['test-webserver'] },
  })),
  {
    names: ['1.27.0-2', '1.28.0-2'].map((version) => `${registry}/nginx:${version}`),
    layers: [base],
    config: { Cmd: ['nginx', '-g', 'daemon off;'] },
  },
  { names: [`${registry}/glibc-dns-testing:2.1.1`], layers: [base], config: { Cmd: ['bash'] } },
  {
    names: [`${registry}/nonewprivs:1.4`],
    layers: [base, plainLayer([file('usr/local/bin/nnp', join(out, 'nonewprivs'), 0o4755)])],
    config: { Cmd: ['nnp'] },
  },
  {
    names: ['registry.k8s.io/pause:3.10.2'],
    layers: [plainLayer([file('pause', join(programs, 'pause'))])],
    config: { User: '65535:65535', Entrypoint: ['/pause'] },
  },
]

const archive = new ImageArchive()
for (const { names, layers, config } of images) {
  archive.add({
    ...{ references: names, layers, config: { Env: [path], ...config } },
    platform: { architecture: 'amd64', os: 'linux' },
  })
}
writeFileSync(join(out, 'images.tar.tmp'), Buffer.concat(archive.tar()))
renameSync(join(out, 'images.tar.tmp'), join(out, 'images.tar'))
