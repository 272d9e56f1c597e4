import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { ImageRole } from '../../../src/payload/payload.ts'
import { repository } from './machine.ts'

/** The archive of the image that the build makes: busybox with sh, httpd, wget and nslookup. */
export const busyboxArchive = `${repository}/build/images/busybox.tar.zst`

/** Where containerd looks for the name of an image in an archive. */
const nameAnnotation = 'io.containerd.image.name'

/** The name of the image in an OCI archive. */
export function imageName(archive: string): string {
  const text = execFileSync('tar', ['--extract', '--to-stdout', '--file', archive, 'index.json'], {
    encoding: 'utf8',
  })
  const { manifests } = JSON.parse(text) as { manifests: { annotations?: Record<string, string> }[] }
  const name = manifests[0]?.annotations?.[nameAnnotation]
  if (name === undefined) throw new Error(`cannot find the name of the image in ${archive}`)
  return name
}

/** The name of an image inside the artifact. */
export function packedImageName(role: ImageRole): string {
  return builtVersion().images[role]
}

/** The version of Kubernetes that was built, such as v1.37.1: `K8S_VERSION` of make. */
export function kubernetesVersion(): string {
  return builtVersion().k8sVersion
}

function builtVersion() {
  return JSON.parse(readFileSync(`${repository}/build/version.json`, 'utf8')) as {
    k8sVersion: string
    images: Record<ImageRole, string>
  }
}
