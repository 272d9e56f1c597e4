/**
 * Makes archives of container images, in the layout of OCI. No registry and no container tool is needed: an image is tars of files
 * and three small JSON documents. What several images of an archive have of the same content is in it once.
 */
import { createHash } from 'node:crypto'
import type { LayerCompression } from './compress.ts'
import { tar, type TarEntry } from '../src/base/tar.ts'

export interface ImageConfig {
  readonly User?: string
  readonly Env?: readonly string[]
  readonly Entrypoint?: readonly string[]
  readonly Cmd?: readonly string[]
  readonly WorkingDir?: string
  readonly Labels?: Readonly<Record<string, string>>
}

export interface Platform {
  readonly architecture: string
  readonly os: 'linux'
  readonly variant?: string
}

/** A layer as an archive has it, and the digest of its tar, by which runtimes know it. */
export interface Layer {
  readonly content: Buffer
  readonly diffId: string
  readonly compression?: LayerCompression
}

export interface Image {
  /** By which it is imported; the first one's tag is its name in the index. */
  readonly references: readonly string[]
  readonly platform: Platform
  readonly config: ImageConfig
  readonly layers: readonly Layer[]
}

interface Descriptor {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
}

const oci = (kind: string) => `application/vnd.oci.image.${kind}`
const indexType = oci('index.v1+json')

export const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex')

export const directory = (path: string, mode = 0o755): TarEntry => ({ path, type: 'directory', mode })
export const executable = (path: string, content: Buffer): TarEntry => ({
  path,
  type: 'file',
  mode: 0o755,
  content,
})
export const text = (path: string, ...lines: string[]): TarEntry => ({
  path,
  type: 'file',
  mode: 0o644,
  content: Buffer.from(lines.map((line) => `${line}\n`).join('')),
})
export const link = (path: string, target: string): TarEntry => ({ path, type: 'symlink', target })

/** Not compressed: for an archive that is compressed as a whole. */
export function plainLayer(files: readonly TarEntry[]): Layer {
  const content = Buffer.concat(tar(files))
  return { content, diffId: `sha256:${sha256(content)}` }
}

export class ImageArchive {
  readonly #blobs = new Map<string, Buffer>()
  readonly #listed: object[] = []
  /** What `docker load` asks for. */
  readonly #docker: object[] = []

  /** Images that are imported by their names. */
  add(...images: readonly Image[]): void {
    for (const image of images) {
      const described = { ...this.#manifest(image), platform: image.platform }
      this.#list(described, image.references)
    }
  }

  /** Images of one name, for different platforms, of which whoever imports it takes his own. */
  addIndex(references: readonly string[], images: readonly Image[]): void {
    const manifests = images.map((image) => ({ ...this.#manifest(image), platform: image.platform }))
    const index = this.#blob(indexType, json({ schemaVersion: 2, mediaType: indexType, manifests }))
    this.#list(index, references)
  }

  #list(described: Descriptor, references: readonly string[]): void {
    for (const reference of references) {
      const annotations = {
        'io.containerd.image.name': reference,
        'org.opencontainers.image.ref.name': tagOf(reference),
      }
      this.#listed.push({ ...described, annotations })
    }
  }

  #manifest({ references, platform, config, layers }: Image): Descriptor {
    const described = layers.map(({ content, compression }) =>
      this.#blob(oci(`layer.v1.tar${compression === undefined ? '' : `+${compression}`}`), content),
    )
    const rootfs = { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) }
    const imageConfig = this.#blob(oci('config.v1+json'), json({ ...platform, config, rootfs }))
    this.#docker.push({
      Config: pathOf(imageConfig),
      RepoTags: references,
      Layers: described.map(pathOf),
    })
    const mediaType = oci('manifest.v1+json')
    return this.#blob(
      mediaType,
      json({ schemaVersion: 2, mediaType, config: imageConfig, layers: described }),
    )
  }

  #blob(mediaType: string, content: Buffer): Descriptor {
    const hex = sha256(content)
    this.#blobs.set(hex, content)
    return { mediaType, digest: `sha256:${hex}`, size: content.length }
  }

  /** The archive. With `docker`, it can be read as one of Docker's, too, which has one platform. */
  tar({ docker = false } = {}): Buffer[] {
    const files: TarEntry[] = [directory('blobs'), directory('blobs/sha256')]
    for (const [hex, content] of this.#blobs)
      files.push({ path: `blobs/sha256/${hex}`, type: 'file', mode: 0o644, content })
    files.push(text('oci-layout', '{"imageLayoutVersion":"1.0.0"}'))
    files.push(document('index.json', { schemaVersion: 2, manifests: this.#listed }))
    if (docker) files.push(document('manifest.json', this.#docker))
    return tar(files)
  }
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))
const document = (path: string, value: unknown): TarEntry => ({
  ...{ path, type: 'file', mode: 0o644 },
  content: json(value),
})
const pathOf = ({ digest }: Descriptor): string => `blobs/${digest.replace(':', '/')}`

function tagOf(reference: string): string {
  const tag = /:([^/:]+)$/.exec(reference)?.[1]
  if (tag === undefined) throw new Error(`cannot name an image ${reference}: it has no tag`)
  return tag
}
