import { execFileSync } from 'node:child_process'
import { repository } from './machine.ts'

/** The archive of the image that the build makes: busybox with sh, httpd, wget and nslookup. */
export const busyboxArchive = `${repository}/build/images/busybox.tar.zst`

/** The name of an image that the build makes: k8s.local/busybox:1.35.0 */
export function imageReference(name: 'busybox' | 'pause' | 'coredns'): string {
  return execFileSync(`${repository}/scripts/image-reference.sh`, [name], { encoding: 'utf8' }).trim()
}
